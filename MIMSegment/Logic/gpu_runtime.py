"""Private runtimes: inference libraries in folders of their own, which only workers see.

ONNX Runtime for GPUs overwrites the files of the one for CPUs, and brings more than a gigabyte. In
a folder of its own it disturbs no other program, needs no restart, and can be removed.

<data home>/runtimes/<name>/                 what pip installed
<data home>/runtimes/<name>/runtime.json     what it is
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from MIMSegment.Logic.diskspace import check_free_space
from MIMSegment.Logic.errors import DeviceError, OutputError
from MIMSegment.Logic.files import not_written, put_in_place
from MIMSegment.Logic.pip_install import Cancel, Progress, pip_install

DEVICES = ("cuda", "directml", "openvino")
"""What there are private runtimes for."""

_RECORD = "runtime.json"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # whose native libraries fit
# NVIDIA's minimum drivers for the CUDA that the builds on PyPI need.
_CUDA_13_DRIVER, _CUDA_12_DRIVER = 580, 525
# Slicer and other extensions rely on their numpy, so workers take that one too.
_HOST = ("numpy", "numpy.libs", "numpy-*.dist-info", "bin")


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver describes it; ``driver`` such as 580.65.06."""

    name: str
    memory_bytes: int
    driver: str


@dataclass(frozen=True)
class Requirement:
    """A runtime to install: ``packages`` and ``options`` for pip, sizes in bytes (about)."""

    name: str
    device: str
    packages: tuple[str, ...]
    download_bytes: int
    installed_bytes: int
    explanation: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstalledRuntime:
    """A private runtime on the disk; ``packages`` maps names to versions, ``python`` is the version
    of the Python that it was made for."""

    name: str
    device: str
    path: Path
    packages: Mapping[str, str]
    python: str = _PYTHON

    @property
    def fits(self) -> bool:
        """Whether this Python can load it; Slicer brings another one with its next version."""
        return self.python == _PYTHON

    @property
    def size_bytes(self) -> int:
        """What it takes on the disk, counted anew."""
        return sum(path.lstat().st_size for path in self.path.rglob("*") if path.is_file())


def nvidia_gpu() -> Gpu | None:
    """The first NVIDIA GPU, asked through nvidia-smi; None without one, or without its driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        name, mebibytes, driver = next(csv.reader(answer.splitlines(), skipinitialspace=True))
        return Gpu(name, int(mebibytes) * 2**20, driver)
    except (OSError, subprocess.SubprocessError, ValueError, StopIteration):
        return None


def driver_version() -> str | None:
    """The version of the NVIDIA driver; None without one."""
    gpu = nvidia_gpu()
    return gpu.driver if gpu else None


def plan(driver: str | None, platform: str = sys.platform) -> Requirement:
    """The runtime for the GPU of a computer with the NVIDIA ``driver``, None without one.

    Raises DeviceError where there is none, saying what to do instead.
    """
    if platform == "darwin":
        raise DeviceError("macOS needs no GPU runtime: CoreML comes with ONNX Runtime.")
    if driver is None and platform == "win32":
        return requirement("directml", platform=platform)
    return requirement("cuda", driver, platform)


def requirement(
    device: str, driver: str | None = None, platform: str = sys.platform
) -> Requirement:
    """The runtime for ``device``; ``driver`` is the NVIDIA driver's version, for ``cuda``.

    Raises DeviceError where there is none.
    """
    if device == "cuda":
        return _cuda(driver, platform)
    if device == "directml":
        if platform != "win32":
            raise DeviceError("DirectML exists on Windows only; choose cuda or openvino.")
        return Requirement(
            "ort-directml", "directml", ("onnxruntime-directml>=1.23",), 25_000_000, 80_000_000,
            "DirectML runs on every GPU with DirectX 12, of NVIDIA, AMD or Intel.",
        )  # fmt: skip
    if device == "openvino":
        # Without dependencies: numpy is there, and openvino-telemetry reports to Google.
        return Requirement(
            "openvino", "openvino", ("openvino>=2025.0",), 60_000_000, 200_000_000,
            "OpenVINO is the fastest on most processors without a GPU.", ("--no-deps",),
        )  # fmt: skip
    raise DeviceError(f"There is no runtime for {device!r}; choose one of: {', '.join(DEVICES)}.")


def _cuda(driver: str | None, platform: str) -> Requirement:
    if platform == "darwin":
        raise DeviceError("NVIDIA GPUs do not work on macOS.")
    if driver is None:
        raise DeviceError(
            "No NVIDIA driver was found. For an NVIDIA GPU, install its driver (580 or newer) "
            "first; for other processors there is `mimsegment runtime install openvino`."
        )
    found = re.match(r"\d+", driver)
    major = int(found[0]) if found else 0
    if major >= _CUDA_13_DRIVER:
        cuda, version, sizes = 13, ">=1.27", (1.6, 2.5)
    elif major >= _CUDA_12_DRIVER:
        cuda, version, sizes = 12, ">=1.24,<1.27", (2.0, 3.3)
    else:
        raise DeviceError(
            f"The NVIDIA driver {driver} is too old for CUDA 12; update it to {_CUDA_13_DRIVER} "
            f"or newer ({_CUDA_12_DRIVER} at least)."
        )
    return Requirement(
        f"ort-cu{cuda}", "cuda", (f"onnxruntime-gpu[cuda,cudnn]{version}",),
        *(round(gigabytes * 1e9) for gigabytes in sizes),
        f"The NVIDIA driver {driver} runs CUDA {cuda}.",
    )  # fmt: skip


def runtimes_folder() -> Path:
    """Where private runtimes lie; it may not exist yet."""
    from MIMSegment.Logic.store import data_home

    return data_home() / "runtimes"


def install(
    wanted: Requirement,
    progress: Progress = lambda done, message: None,
    cancelled: Cancel = lambda: False,
    root: Path | None = None,
    python: str | Path = sys.executable,
    env: Mapping[str, str] | None = None,
) -> InstalledRuntime:
    """Download and install a runtime, whole or not at all; one of the same name is replaced.

    ``progress`` hears the bytes downloaded of about ``wanted.download_bytes``. ``env`` is added to
    pip's environment. Raises DeviceError, OutputError, Cancelled.
    """
    from MIMSegment.Logic.file_lock import file_lock

    root = root or runtimes_folder()
    check_free_space(root, wanted.download_bytes + wanted.installed_bytes, wanted.name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(root / ".lock", cancelled):
            for old in root.glob(".unfinished-*"):  # of an installation that was killed
                shutil.rmtree(old, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=".unfinished-", dir=root, ignore_cleanup_errors=True
            ) as scratch:
                folder = Path(scratch, wanted.name)
                pip_install(
                    folder, Path(scratch, "tmp"), wanted.packages, _host_versions(),
                    wanted.options, progress, cancelled, python, env,
                )  # fmt: skip
                _complete(folder, wanted)
                _move(folder, root / wanted.name, Path(scratch, "replaced"))
    except OSError as error:
        raise not_written(root / wanted.name, error) from error
    return _read(root / wanted.name)


def installed(root: Path | None = None) -> list[InstalledRuntime]:
    """The private runtimes, by name; damaged ones are left out."""
    found = []
    for record in sorted((root or runtimes_folder()).glob(f"*/{_RECORD}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append(_read(record.parent))
    return found


def remove(name: str, root: Path | None = None) -> int:
    """Remove a runtime; returns the bytes freed. Raises DeviceError, OutputError."""
    runtime = _find(name, root)
    size = runtime.size_bytes
    try:
        # First out of sight in one step: half a runtime must not be found.
        with tempfile.TemporaryDirectory(
            prefix=".unfinished-", dir=runtime.path.parent, ignore_cleanup_errors=True
        ) as scratch:
            runtime.path.rename(Path(scratch, name))
    except OSError as error:
        raise OutputError(
            f"{runtime.path} could not be removed ({error.strerror or error}); close the programs "
            "that use it."
        ) from error
    return size


def runtime_for(device: str, root: Path | None = None) -> str | None:
    """The name of an installed runtime for ``device`` and this Python, the newest CUDA first; None
    without one."""
    found = [runtime for runtime in installed(root) if runtime.fits]
    names = [runtime.name for runtime in found if runtime.device == device]
    return names[-1] if names else None


def runtimes_for(device: str, root: Path | None = None) -> tuple[str, ...]:
    """The installed runtimes that a process needs for ``device`` and what it may fall back to.

    ``device`` as in `runtime.open_session`. None for ``cpu``, so that a broken runtime can never
    take the last resort away.
    """
    first = {"auto": ("cuda", "directml"), "cuda": ("cuda",), "directml": ("directml",)}
    names = [runtime_for(wanted, root) for wanted in first.get(device, ())]
    names = [name for name in names if name][:1]  # they are builds of one library
    if device not in ("cpu", "coreml"):
        names.append(runtime_for("openvino", root))
    return tuple(name for name in names if name)


def worker_environment(*names: str, root: Path | None = None) -> dict[str, str]:
    """What to add to a worker's environment so that it sees these runtimes before all else."""
    folders = _folders(names, root)
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {"PYTHONPATH": os.pathsep.join(folders + inherited)} if folders else {}


def activate(*names: str, root: Path | None = None) -> None:
    """Let this process see these runtimes before all else; for programs without a worker.

    To be called before the first session is opened.
    """
    sys.path[:0] = _folders(names, root)


def _folders(names: Sequence[str], root: Path | None) -> list[str]:
    return [str(_find(name, root).path) for name in names]


def _find(name: str, root: Path | None) -> InstalledRuntime:
    runtimes = installed(root)
    for runtime in runtimes:
        if runtime.name == name:
            return runtime
    known = ", ".join(runtime.name for runtime in runtimes) or "none"
    raise DeviceError(f"There is no installed runtime {name!r}; installed: {known}.")


def _host_versions() -> Sequence[str]:
    from importlib import metadata  # a third of what importing the command line takes

    try:
        return [f"numpy=={metadata.version('numpy')}"]
    except metadata.PackageNotFoundError:
        return []


def _complete(folder: Path, wanted: Requirement) -> None:
    """Take out what the host has, and write the record."""
    from importlib import metadata

    for pattern in _HOST:
        for path in folder.glob(pattern):
            shutil.rmtree(path)
    found = metadata.distributions(path=[str(folder)])
    packages = {d.metadata["Name"]: d.version for d in found}
    packages = dict(sorted(packages.items()))
    record = {"device": wanted.device, "packages": packages, "python": _PYTHON}
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _move(folder: Path, target: Path, replaced: Path) -> None:
    if target.exists():
        put_in_place(target, replaced)
    try:
        put_in_place(folder, target)
    except OSError:
        if replaced.exists():
            put_in_place(replaced, target)
        raise


def _read(folder: Path) -> InstalledRuntime:
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    device, packages = record["device"], record["packages"]
    return InstalledRuntime(folder.name, device, folder, packages, record.get("python", _PYTHON))
