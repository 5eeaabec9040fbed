"""How fast is a scan segmented, against nnU-Net and MONAI with the same weights? One JSON line.

    make bench-setup                   once: nnU-Net 2.8.1 and MONAI in .venv-bench
    python benchmarks/inference.py     (Linux; --quick only shows that it works)

nnU-Net plans, makes and saves the model (ResEnc-M, 15 classes); `export.py --from-nnunet` converts
it. Every program is a process of its own and gets the same file, windows and overlap, all cores
and no mirroring. Its time is from its start to the labels on the disk, its memory that of all its
processes at one time. ``speed_vs_`` a peer is how many times as long the peer takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from inference_figures import figures
from measured_process import measure

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

CASE = "case_0000.nii.gz"
OURS = {  # options of `mimsegment segment` by program, for each device
    "cpu": {
        "openvino": ("--device", "openvino"),
        "openvino_float32": ("--device", "openvino", "--precision", "float32"),
        "ort": ("--device", "cpu"),
    },
    "cuda": {"cuda": ("--device", "cuda")},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    # fmt: off
    add("--folder", type=Path, default=ROOT / "runs" / "inference_benchmark",
        help="for the model and the results; a model that is there is used again (%(default)s)")
    add("--slices", type=int, default=88, help="of the scan, at most 150 (%(default)s)")
    add("--quick", action="store_true", help="a small scan and an untrained model")
    add("--only", nargs="+", default=(), metavar="PROGRAM",
        help="measure only these, the figures of the others are those of the last time")
    add("--device", choices=tuple(OURS), default="cpu", help="cuda has not been tried yet")
    add("--peers", type=Path, default=ROOT / ".venv-bench", help="environment (%(default)s)")
    # fmt: on
    arguments = parser.parse_args()
    folder = arguments.folder.absolute() / ("quick" if arguments.quick else "full")
    make_model(folder, arguments.peers, steps=1 if arguments.quick else 60)
    scan = cut_scan(folder, 24 if arguments.quick else arguments.slices, arguments.quick)
    commands = programs(folder, scan, arguments.device, arguments.peers)
    for name in arguments.only or commands:
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = asdict(measure(commands[name]))
        print(f"{name}: {result}", file=sys.stderr, flush=True)
        (scan / f"{name}.json").write_text(json.dumps(result))
    print(json.dumps(figures(scan, list(commands))))


def make_model(folder: Path, peers: Path, steps: int) -> None:
    """A phantom, nnU-Net's model of it and our package, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "package").exists():
        return
    python = [sys.executable, peers / "bin" / "python"]
    for command in (
        [python[0], HERE / "inference_case.py", folder],
        [python[1], HERE / "inference_model.py", folder, "--steps", steps],
        [python[0], ROOT / "training" / "export.py", "--from-nnunet", folder / "model",
         folder / "package", "--license", "none"],
    ):  # fmt: skip
        subprocess.run([*map(str, command)], check=True, stdout=sys.stderr)


def cut_scan(folder: Path, slices: int, quick: bool) -> Path:
    """A folder ``input`` with the middle ``slices`` of the phantom, in a folder of its own."""
    from MIMSegment.Logic.volume import Volume, read_volume, write_volume

    scan = folder / f"{slices}_slices"
    target = scan / "input" / CASE
    if not target.exists():
        target.parent.mkdir(parents=True)
        volume = read_volume(folder / CASE)
        shape = (slices, *((n // 2 if quick else n) for n in volume.geometry.shape[1:]))
        start = [(n - m) // 2 for n, m in zip(volume.geometry.shape, shape, strict=True)]
        block = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        part = Volume(volume.array[(slice(None), *block)], volume.geometry.cropped(start, shape))
        write_volume(part, target)
    return scan


def programs(folder: Path, scan: Path, device: str, peers: Path) -> dict[str, list]:
    """The command of each program; its labels go to ``scan / NAME / case.nii.gz``."""
    image, model = scan / "input" / CASE, folder / "model"
    for name in ("nnunet", "monai", *OURS[device]):
        (scan / name).mkdir(exist_ok=True)
    found = {
        "nnunet": [
            peers / "bin" / "nnUNetv2_predict_from_modelfolder", "-i", image.parent,
            "-o", scan / "nnunet", "-m", model, "-f", 0, "-device", device, "--disable_tta",
        ],
        "monai": [
            peers / "bin" / "python", HERE / "inference_monai.py", image, model,
            scan / "monai" / "case.nii.gz", "--device", device,
        ],
    }  # fmt: skip
    for name, options in OURS[device].items():
        found[name] = [
            sys.executable, HERE / "inference_ours.py", scan / f"{name}_times.json", "segment",
            image, "--model", folder / "package", "--output", scan / name / "case.nii.gz",
            *options, "--no-mirroring", "--quiet",
        ]  # fmt: skip
    return found


if __name__ == "__main__":
    main()
