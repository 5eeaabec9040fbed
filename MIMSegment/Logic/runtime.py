"""Sessions: networks ready to be called, on whatever device. An inference library is imported when
a session that needs it is opened, here and in `openvino_session` only."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np

from MIMSegment.Logic.crew import available_cores
from MIMSegment.Logic.device_report import AUTOMATIC, DEVICES, TITLES
from MIMSegment.Logic.errors import DeviceError, MissingDevice, PackageError
from MIMSegment.Logic.openvino_session import OpenVinoSession
from MIMSegment.Logic.session import (
    BaseSession,
    Session,
    failure,
    import_library,
    is_out_of_memory,
    reason,
    return_freed_memory,
)

_PROVIDERS = {
    # An exhaustive search for each new window shape would outlast many a volume.
    "cuda": ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}),
    "directml": ("DmlExecutionProvider", {}),
    "coreml": ("CoreMLExecutionProvider", {"ModelFormat": "MLProgram"}),
    "cpu": ("CPUExecutionProvider", {}),
}
_INSTALL = {
    "cuda": "install it with `mimsegment runtime install cuda`",
    "directml": "install it with `mimsegment runtime install directml`",
    "coreml": "install it with `pip install onnxruntime`",
    "cpu": "install it with `pip install onnxruntime`",
}
_TORCHSCRIPT = (".ts", ".pt", ".pth")


def open_session(
    path: str | Path,
    device: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    trusted: bool = False,
    tile_shape: tuple[int, ...] | None = None,
) -> Session:
    """Load the network ``path`` (ONNX, or TorchScript if ``trusted``) on ``device``.

    ``auto`` takes the first of `device_report.AUTOMATIC` that works.
    ``precision`` None is the fastest that the processor has instructions for. ``threads`` is for
    the CPU. ``tile_shape``, of most calls to come, saves memory. Raises DeviceError, PackageError.
    """
    path = Path(path)
    if not path.is_file():
        raise PackageError(f"{path} is missing; the package is incomplete, get it again.")
    if path.suffix.lower() in _TORCHSCRIPT:
        return TorchScriptSession(path, device, precision, threads, trusted)
    if device != "auto":
        return _open_onnx(path, device, precision, threads, tile_shape)
    failures = []
    for candidate in AUTOMATIC:
        try:
            return _open_onnx(path, candidate, precision, threads, tile_shape)
        except (DeviceError, PackageError) as error:
            failures.append(error)
    raise failures[-1]


def _open_onnx(path: Path, device: str, precision, threads, tile_shape) -> Session:
    if device == "openvino":
        session = OpenVinoSession(path, threads, precision, tile_shape)
    else:
        session = OnnxSession(path, threads, device, precision)
    return_freed_memory()
    return session


class OnnxSession(BaseSession):
    """An ONNX network by ONNX Runtime, on ``cpu``, ``cuda``, ``directml`` or ``coreml``.

    Raises DeviceError when the library or the device does not work, PackageError for a file that
    it cannot load.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        device: str = "cpu",
        precision: str | None = None,
    ):
        super().__init__(device)
        if device not in _PROVIDERS:
            raise DeviceError(
                f"{device!r} is no device; choose one of: auto, {', '.join(DEVICES)}."
            )
        library, complaints = _onnxruntime(device)
        self._threads = threads or available_cores()
        self._loaded = self._load(library, Path(path))
        assigned = _operations_by_provider(self._loaded)
        if device != "cpu":
            self._check_provider(assigned, complaints)
        image, logits = self._loaded.get_inputs()[0], self._loaded.get_outputs()[0]
        self._input = image.name
        self._dtype = np.float16 if image.type == "tensor(float16)" else np.float32
        self.input_shape, self.output_shape = tuple(image.shape), tuple(logits.shape)
        self.precision = np.dtype(self._dtype).name
        if precision not in (None, self.precision):
            raise DeviceError(
                f"ONNX Runtime calculates in the precision of the file, which is {self.precision}; "
                f"for {precision} choose another device, or leave the precision open."
            )
        where = f"CPU, {self._threads} threads" if device == "cpu" else device
        if leftover := sum(assigned.values()) - assigned.get(_PROVIDERS[device][0], 0):
            where += f" ({leftover} of {sum(assigned.values())} operations on the CPU)"
        self.description = f"ONNX Runtime {library.__version__}, {where}, {self.precision}"
        self._options = library.RunOptions()
        self._options.log_severity_level = 4  # what it logs, it also raises

    def terminate(self) -> None:
        super().terminate()
        self._options.terminate = True

    def _run(self, tile: np.ndarray) -> np.ndarray:
        tile = np.ascontiguousarray(tile, self._dtype)
        logits = self._loaded.run(None, {self._input: tile}, self._options)[0]
        return logits.astype(np.float32, copy=False)

    def _load(self, library, path: Path):
        options = library.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self._threads
        # Measured: a fifth less memory at its peak, half between two windows, equal speed.
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self.device == "directml":
            options.enable_mem_pattern = False  # it refuses to load otherwise
        provider = _PROVIDERS[self.device]
        try:
            return library.InferenceSession(
                str(path), options, providers=[provider], enable_fallback=0
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise failure(error, f"ONNX Runtime ({self.device})") from None
            if self.device != "cpu":
                raise DeviceError(
                    f"{path.name} cannot run on {self.device} ({reason(error)}); choose another "
                    "device."
                ) from None
            raise PackageError(
                f"{path} is no ONNX model that ONNX Runtime {library.__version__} can load "
                f"({reason(error)}); get the package again."
            ) from None

    def _check_provider(self, assigned: dict[str, int], complaints: str) -> None:
        """Raise DeviceError unless the provider has started and has something to do."""
        provider = _PROVIDERS[self.device][0]
        if provider not in self._loaded.get_providers():
            why = f" ({complaints})" if complaints else ""
            raise DeviceError(
                f"ONNX Runtime lists {provider} but could not start it{why}; its libraries or the "
                "driver are missing or too old."
            )
        if assigned and provider not in assigned:
            raise DeviceError(
                f"{provider} cannot calculate any part of this network, it would run on the CPU; "
                "choose another device."
            )


class TorchScriptSession(BaseSession):
    """A TorchScript network by PyTorch, on ``cuda`` or ``cpu``; only what the user trusts.

    Such a file is a program. A running window cannot be stopped, only the next one.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
        trusted: bool = False,
    ):
        if not trusted:
            raise PackageError(
                f"{path} is TorchScript, which is a program that may do anything on this computer. "
                "If you know where it comes from and trust it, say so (`mimsegment segment "
                "--trust-torchscript`); otherwise ask for the model as ONNX."
            )
        if precision not in (None, "float32"):
            raise DeviceError(f"TorchScript networks run in float32, not in {precision}.")
        self._torch = import_library(
            "torch", "PyTorch", "TorchScript models need it: `pip install torch`"
        )
        if device == "auto":
            device = "cuda" if self._torch.cuda.is_available() else "cpu"
        if device not in ("cuda", "cpu"):
            raise DeviceError(f"TorchScript networks run on cuda or cpu, not on {device}.")
        super().__init__(device)
        self.precision = "float32"
        if threads:
            self._torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self._loaded = self._torch.jit.load(str(path), map_location=device).eval()
        except Exception as error:
            if device == "cuda" and not self._torch.cuda.is_available():
                raise DeviceError(f"PyTorch finds no NVIDIA GPU ({reason(error)}).") from None
            raise PackageError(
                f"{path} is no TorchScript model that PyTorch {self._torch.__version__} can load "
                f"({reason(error)}); get the package again."
            ) from None
        where = "cuda" if device == "cuda" else f"CPU, {self._torch.get_num_threads()} threads"
        self.description = f"PyTorch {self._torch.__version__}, {where}, {self.precision}"

    def _run(self, tile: np.ndarray) -> np.ndarray:
        tile = np.ascontiguousarray(tile, np.float32)
        with self._torch.inference_mode():
            logits = self._loaded(self._torch.from_numpy(tile).to(self.device))
        return logits.float().cpu().numpy()


def _onnxruntime(device: str):
    """ONNX Runtime with ``device``'s libraries loaded, and what it complained about meanwhile."""
    library = import_library("onnxruntime", "ONNX Runtime", _INSTALL[device])
    if hasattr(library, "disable_telemetry_events"):
        library.disable_telemetry_events()  # Windows builds report events to Microsoft
    provider = _PROVIDERS[device][0]
    if provider not in library.get_available_providers():
        raise MissingDevice(
            f"The runtime for {TITLES[device]} is not installed: ONNX Runtime "
            f"{library.__version__} has no {provider}; {_INSTALL[device]}."
        )
    if device != "cuda" or not hasattr(library, "preload_dlls"):
        return library, ""
    with contextlib.redirect_stdout(io.StringIO()) as said:  # stdout may be somebody's protocol
        library.preload_dlls()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("Failed")]
    return library, lines[0] if lines else ""


def _operations_by_provider(session) -> dict[str, int]:
    """Operations of the network by the provider that runs them; empty in ONNX Runtime < 1.24."""
    counts: dict[str, int] = {}
    with contextlib.suppress(AttributeError):
        for part in session.get_provider_graph_assignment_info():
            counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts
