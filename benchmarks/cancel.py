"""How long from a cancel to a dead worker whose folder is gone? Prints one JSON line.

    python benchmarks/cancel.py [--runs 9]

The network is a chain of 3×3×3 convolutions on 96³ windows, so that each window takes seconds;
the request comes at a random moment within one. ``cancel_seconds`` is the median.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MIMSegment.Logic.crew import available_cores
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.job_folder import EVENTS
from MIMSegment.Logic.jobs import JobQueue, JobState
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import ModelPackage, write_package
from MIMSegment.Logic.processes import start_time
from MIMSegment.Logic.spec import ModelSpec, Normalization, Preprocessing
from MIMSegment.Logic.volume import Geometry, Volume

PATCH = (96, 96, 96)
WIDTH, DEPTH = 32, 8
POLL_INTERVAL = 0.02  # seconds; what a user interface with a timer of 20 ms would see


def main() -> None:
    """Cancel ``--runs`` jobs and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="mimsegment-benchmark-") as scratch:
        folder = Path(scratch, "jobs")
        folder.mkdir()
        package = write_heavy_package(Path(scratch))
        array = np.random.default_rng(0).integers(-1000, 1000, (1, 144, 96, 96), np.int16)
        volume = Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))
        with JobQueue(folder=folder) as queue:
            window = measure_window(queue, volume, package)
            moment = random.Random(0)
            times = [
                measure_cancel(queue, volume, package, folder, moment.uniform(0, 0.9) * window)
                for _ in range(runs)
            ]
    print(json.dumps({
        "cancel_seconds": round(statistics.median(times), 3),
        "cancel_seconds_max": round(max(times), 3),
        "runs": runs,
        "window_seconds": round(window, 2),
        "poll_interval_seconds": POLL_INTERVAL,
        "cores": available_cores(),
    }))  # fmt: skip


def measure_window(queue: JobQueue, volume: Volume, package: ModelPackage) -> float:
    """Seconds that the network needs for its second window."""
    job = queue.submit(volume, package.path, InferenceOptions(device="cpu"))
    times = []
    for count in (1, 2):
        wait_for_window(queue, job, count)
        times.append(time.perf_counter())
    queue.cancel(job)
    queue.wait(job)
    return times[1] - times[0]


def measure_cancel(
    queue: JobQueue, volume: Volume, package: ModelPackage, folder: Path, delay: float
) -> float:
    """Seconds from a cancel to worker and folder gone, ``delay`` seconds into the second window."""
    job = queue.submit(volume, package.path, InferenceOptions(device="cpu"))
    wait_for_window(queue, job, 1)
    (job_folder,) = folder.iterdir()
    pid = json.loads((job_folder / EVENTS).read_text().splitlines()[0])["pid"]
    time.sleep(delay)
    began = time.perf_counter()
    queue.cancel(job)
    while not job.finished or job_folder.exists() or start_time(pid) is not None:
        queue.poll()
        time.sleep(POLL_INTERVAL)
    seconds = time.perf_counter() - began
    if job.state is not JobState.CANCELLED:
        raise SystemExit(f"The job ended as {job.state}: {job.error}")
    return seconds


def wait_for_window(queue: JobQueue, job, count: int) -> None:
    """Poll until ``count`` windows are done."""
    while job.done < count:
        queue.poll()
        if job.finished:
            raise SystemExit(f"The job ended as {job.state}: {job.error}")
        time.sleep(0.005)


def write_heavy_package(folder: Path) -> ModelPackage:
    """A package whose network, with random weights, is slow and means nothing."""
    monai = {"version": "0.0.0", "task": "benchmark", "description": "Random weights."}
    spec = ModelSpec(
        (InputSpec("CT", "CT"),),
        Preprocessing((None, None, None), (Normalization("zscore"),)),
        PATCH,
        (0, 1),
    )
    return write_package(
        folder / "package", "cancel-benchmark", "Cancel benchmark", spec, [Label(1, "Nothing")],
        {"models/model.onnx": write_network(folder / "model.onnx")}, "Random weights.\n",
        "Apache-2.0\n", monai,
    )  # fmt: skip


def write_network(path: Path) -> Path:
    """``DEPTH`` convolutions of ``WIDTH`` channels, then two logits."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    channels = [1, *[WIDTH] * DEPTH, 2]
    nodes, weights = [], []
    for index, (before, after) in enumerate(pairwise(channels)):
        kernel = rng.normal(0, (27 * before) ** -0.5, (after, before, 3, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{index}"))
        names = [f"x{index}", f"kernel{index}"], [f"x{index + 1}"]
        nodes.append(helper.make_node("Conv", *names, pads=[1] * 6))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, *"zyx"])
        for name, count in (("x0", 1), (f"x{len(nodes)}", 2))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        str(path),
    )
    return path


if __name__ == "__main__":
    main()
