"""Running a package when devices or memory fail: every step down is said, the result stays."""

import math
import weakref
from dataclasses import replace

import numpy as np
import pytest

from MIMSegment.Logic import batching, engine, inference, runtime
from MIMSegment.Logic.errors import (
    DeviceError,
    MissingDevice,
    NotANumber,
    OutOfMemory,
    PackageError,
)
from MIMSegment.Logic.gpu_runtime import Gpu
from MIMSegment.Logic.inference import InferenceOptions, run_package
from MIMSegment.Logic.volume import Geometry, Volume
from runtime_cases import OPENVINO, TORCH, unpooling_onnx, write_torchscript
from tiny_package import threshold_spec, write_threshold_package


class Small:
    """A device with room for windows of ``voxels`` in all."""

    def __init__(self, session, device, voxels):
        self._session, self.device, self._voxels = session, device, voxels
        self.description = f"test device {device}"
        self.input_shape, self.output_shape = session.input_shape, session.output_shape
        self.precision, self.closed = session.precision, False
        self.check_channels = session.check_channels

    def close(self):
        self.closed = True
        self._session.close()

    def __call__(self, tile):
        if tile.size > self._voxels:
            raise OutOfMemory("no room")
        return self._session(tile)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    spec = threshold_spec(patch=(32, 32, 64))
    return write_threshold_package(tmp_path_factory.mktemp("package") / "package", spec)


@pytest.fixture(scope="module")
def volume():
    array = np.random.default_rng(0).random((1, 40, 50, 130), np.float32)
    return Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))


@pytest.fixture
def attempts():
    """Device and precision of each network that is opened."""
    return []


@pytest.fixture
def devices(monkeypatch, attempts):
    """Sets what each device is: voxels that it has room for, or the error when it is opened."""
    found = {}
    real = runtime.open_session

    def open_session(path, device, precision, *options):
        if isinstance(found[device], Exception):
            raise found[device]
        attempts.append((device, precision))
        return Small(real(path, "cpu", None, 1), device, found[device])

    monkeypatch.setattr(runtime, "open_session", open_session)
    monkeypatch.setattr(inference, "fallback_order", lambda device: tuple(found))
    return found


@pytest.fixture(scope="module")
def expected(package, volume):
    return run_package(volume, package, InferenceOptions("cpu", threads=1)).labels


def test_windows_become_smaller_until_they_fit(devices, package, volume, expected):
    devices["cpu"] = 32 * 32 * 32
    told = []
    result = run_package(volume, package, InferenceOptions("cpu"), told.append)
    assert "Little memory: now in smaller parts, of 32 × 32 × 32 voxels." in told
    assert np.array_equal(result.labels, expected)


def test_a_smaller_batch_comes_before_smaller_windows(
    devices, package, volume, expected, monkeypatch
):
    monkeypatch.setattr(batching, "_WORTH_IT", math.inf)  # grows whatever the time
    devices["cuda"] = 3 * 32 * 32 * 64
    told = []
    result = run_package(volume, package, InferenceOptions("cuda"), told.append)
    assert [line for line in told if line.startswith("Little memory")] == [
        "Little memory: now 2 parts at once.",
    ]
    assert np.array_equal(result.labels, expected)


def test_the_next_device_takes_over_when_nothing_fits(devices, package, volume, expected):
    devices |= {"cuda": 1000, "openvino": 1000, "cpu": 10**9}
    told = []
    result = run_package(volume, package, InferenceOptions("cuda"), told.append)
    assert [line for line in told if "memory on" in line or line.startswith("Runs")] == [
        "Runs on test device cuda.", "Too little memory on cuda.",
        "Runs on test device openvino.", "Too little memory on openvino.",
        "Runs on test device cpu.",
    ]  # fmt: skip
    assert np.array_equal(result.labels, expected)


def test_a_network_that_overflows_is_run_on_the_next_device(
    devices, package, volume, expected, monkeypatch
):
    """As in half precision, where large values are infinite."""
    run = Small.__call__

    def overflowing(session, tile):
        return run(session, tile) * (np.inf if session.device != "cpu" else 1)

    monkeypatch.setattr(Small, "__call__", overflowing)
    devices |= {"openvino": 10**9, "cpu": 10**9}
    told = []
    result = run_package(volume, package, InferenceOptions("openvino"), warn=told.append)
    assert told == ["The network calculated values that are no numbers on openvino."]
    assert np.array_equal(result.labels, expected)
    del devices["cpu"]
    with pytest.raises(NotANumber, match="choose float32 or another device"):
        run_package(volume, package, InferenceOptions("openvino"))


def test_a_device_without_room_gives_its_memory_back_before_the_next_one(devices, package, volume):
    devices |= {"cuda": 1000, "cpu": 10**9}
    before = []

    def opened(sessions):
        assert all(session.closed for session in before)
        before.extend(sessions)

    run_package(volume, package, InferenceOptions("cuda"), opened=opened)
    assert [session.device for session in before] == ["cuda", "cpu"]


def full_once(real):
    """``real``, whose first call finds no memory."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise MemoryError
        return real(*arguments)

    return call


@pytest.mark.parametrize("where", ["SlabAccumulator", "resize_planes"])
def test_no_memory_beside_the_network_is_met_with_smaller_windows(
    devices, package, volume, expected, monkeypatch, where
):
    devices["cpu"] = 10**9
    monkeypatch.setattr(engine, where, full_once(getattr(engine, where)))
    told = []
    result = run_package(volume, package, InferenceOptions("cpu"), told.append)
    assert "Little memory: now in smaller parts, of 32 × 32 × 32 voxels." in told
    assert np.array_equal(result.labels, expected)


def test_no_memory_after_the_last_window_is_met_by_the_next_device_or_told(
    devices, package, volume, expected, monkeypatch
):
    devices |= {"openvino": 10**9, "cpu": 10**9}
    real = inference.check_result
    monkeypatch.setattr(inference, "check_result", full_once(real))
    result = run_package(volume, package, InferenceOptions("openvino"))
    assert np.array_equal(result.labels, expected)
    del devices["openvino"]
    monkeypatch.setattr(inference, "check_result", full_once(real))
    with pytest.raises(OutOfMemory, match="image and its result; close other programs"):
        run_package(volume, package, InferenceOptions("cpu"))


@pytest.mark.parametrize(
    "device, precision, opened",
    [
        ("auto", "float32", [("openvino", "float32"), ("cpu", "float32")]),
        ("auto", "bfloat16", [("openvino", "bfloat16"), ("cpu", "bfloat16")]),
        ("openvino", "float32", [("openvino", "float32"), ("cpu", "float32")]),
        ("openvino", "bfloat16", [("openvino", "bfloat16"), ("cpu", None)]),
    ],
)
def test_the_precision_that_was_asked_for_is_that_of_the_device_taken(
    devices, attempts, package, volume, device, precision, opened
):
    devices |= {"openvino": 1000, "cpu": 10**9}
    run_package(volume, package, InferenceOptions(device, precision))
    assert attempts == opened


def test_an_unknown_precision_is_refused_whatever_the_device(package, volume):
    with pytest.raises(DeviceError, match="'double' is no precision; choose one of: float32"):
        run_package(volume, package, InferenceOptions("auto", "double"))


def test_a_graphics_card_without_its_runtime_is_mentioned(devices, package, volume, monkeypatch):
    monkeypatch.setattr(inference, "nvidia_gpu", lambda: Gpu("NVIDIA A4000", 2**34, "550.1"))
    devices |= {"cuda": MissingDevice("No CUDA; install it."), "cpu": 10**9}
    told = []
    run_package(volume, package, InferenceOptions("auto"), told.append)
    assert told[0] == "The NVIDIA A4000 is not used: No CUDA; install it."


@pytest.fixture
def torchscript(package, tmp_path):
    """The package with its network as TorchScript."""
    write_torchscript(tmp_path / "model.ts")
    return replace(package, path=tmp_path, spec=replace(package.spec, models=("model.ts",)))


@TORCH
def test_torchscript_runs_only_where_it_is_trusted(torchscript, volume, expected):
    with pytest.raises(PackageError, match="a program that may do anything"):
        run_package(volume, torchscript, InferenceOptions("cpu"))
    result = run_package(volume, torchscript, InferenceOptions("cpu", trusted=True))
    assert np.array_equal(result.labels, expected)


@TORCH
def test_torchscript_without_room_for_a_window_is_an_error(torchscript, volume, monkeypatch):
    def full(session, tile):
        raise MemoryError

    monkeypatch.setattr(runtime.TorchScriptSession, "_run", full)
    with pytest.raises(OutOfMemory, match="not enough memory for a window"):
        run_package(volume, torchscript, InferenceOptions("cpu", trusted=True))


def test_no_room_anywhere_is_an_error(devices, package, volume):
    devices |= {"cuda": 1000, "cpu": 1000}
    with pytest.raises(OutOfMemory):
        run_package(volume, package, InferenceOptions("cuda"))


def test_no_room_for_the_network_itself_is_told(devices, package, volume, expected):
    devices |= {"cuda": OutOfMemory("The GPU is full."), "cpu": 10**9}
    told = []
    result = run_package(volume, package, InferenceOptions("auto"), told.append)
    assert told[0] == "The GPU is full. Trying the next device."
    assert np.array_equal(result.labels, expected)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_device_that_fails_is_told_and_one_that_was_never_there_only_if_asked_for(
    devices, package, volume, asked
):
    devices |= {"cuda": MissingDevice("No CUDA."), "openvino": DeviceError("It is broken."),
                "cpu": 10**9}  # fmt: skip
    told = []
    run_package(volume, package, InferenceOptions(asked), told.append)
    missing = ["No CUDA. Trying the next device."] if asked == "cuda" else []
    assert [line for line in told if "Trying" in line] == [
        *missing, "It is broken. Trying the next device.",
    ]  # fmt: skip


@OPENVINO
def test_a_network_that_openvino_cannot_load_runs_on_the_next_device(package, volume, tmp_path):
    unpooling_onnx(tmp_path / "model.onnx", 1, 2)
    other = replace(package, path=tmp_path, spec=replace(package.spec, models=("model.onnx",)))
    told = []
    run_package(volume, other, InferenceOptions("auto", threads=1), told.append)
    (failed,) = [line for line in told if "openvino" in line]
    assert failed.startswith("model.onnx cannot run on openvino (") and "MaxUnpool" in failed
    assert failed.endswith("; choose another device. Trying the next device.")
    assert any(line.startswith("Runs on ONNX Runtime") for line in told)


def test_a_computer_without_any_device_says_the_last_reason(devices, package, volume):
    devices |= {"cuda": MissingDevice("No CUDA."), "cpu": DeviceError("The CPU is broken.")}
    with pytest.raises(DeviceError, match="The CPU is broken"):
        run_package(volume, package, InferenceOptions("auto"))


def test_a_structure_that_the_package_does_not_have_is_refused(package, volume):
    with pytest.raises(PackageError, match="no structure with label 9"):
        run_package(volume, package, InferenceOptions("cpu", wanted=(3, 9)))


def test_the_network_gives_its_memory_back_before_the_result_is_put_together(package, volume):
    alive = []

    def opened(sessions):
        alive.extend(weakref.ref(session._loaded) for session in sessions)

    def look(done, total):
        assert (alive[0]() is None) == (done == total)

    run_package(volume, package, InferenceOptions("cpu"), progress=look, opened=opened)
    assert len(alive) == 1
