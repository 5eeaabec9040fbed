"""Devices and sessions: the only file that imports an inference library."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from MIMSegment.Logic.errors import Cancelled, DeviceError, PackageError


class OnnxSession:
    """An ONNX network on the CPU by ONNX Runtime; call it with (b, c, z, y, x) float32.

    Raises DeviceError without ONNX Runtime and PackageError for a file it cannot load.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        try:
            import onnxruntime
        except ImportError:
            raise DeviceError(
                "ONNX Runtime is not installed; install it with `pip install onnxruntime`."
            ) from None
        if hasattr(onnxruntime, "disable_telemetry_events"):
            onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or available_cores()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exception types are not public
            reason = str(error).strip().splitlines()[0].split("] : ", 1)[-1]
            raise PackageError(
                f"{path} is no ONNX model that ONNX Runtime {onnxruntime.__version__} can load "
                f"({reason}); get the package again."
            ) from None
        self._run_options = onnxruntime.RunOptions()
        self._input = self._session.get_inputs()[0].name
        self.input_shape = tuple(self._session.get_inputs()[0].shape)
        self.output_shape = tuple(self._session.get_outputs()[0].shape)

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        try:
            return self._session.run(None, {self._input: tile}, self._run_options)[0]
        except Exception:
            if self._run_options.terminate:
                raise Cancelled("Stopped on request.") from None
            raise

    def terminate(self) -> None:
        """From any thread: end the running call with Cancelled, and every later one."""
        self._run_options.terminate = True

    def check_channels(self, inputs: int, outputs: int, source: str) -> None:
        """Raise PackageError when the network's channels are not the package's."""
        for what, shape, count in (
            ("takes", self.input_shape, inputs),
            ("returns", self.output_shape, outputs),
        ):
            if len(shape) != 5 or (isinstance(shape[1], int) and shape[1] != count):
                raise PackageError(
                    f"{source}: the network {what} {shape[1] if len(shape) > 1 else '?'} "
                    f"channel(s), the metadata says {count}; the package is inconsistent."
                )


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
