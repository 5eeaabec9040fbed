"""Networks on the CPU by OpenVINO, which calculates in half precision where the processor can."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from MIMSegment.Logic.errors import DeviceError, PackageError
from MIMSegment.Logic.onnx_header import read_shapes
from MIMSegment.Logic.session import (
    BaseSession,
    check_precision,
    failure,
    import_library,
    is_out_of_memory,
    reason,
    return_freed_memory,
)

_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVinoSession(BaseSession):
    """An ONNX network by OpenVINO on the CPU; errors as for `runtime.OnnxSession`.

    Without ``precision`` OpenVINO takes bfloat16 or float16 where the processor calculates in it.
    With a ``tile_shape`` it needs less memory for tiles of that shape.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        precision: str | None = None,
        tile_shape: tuple[int, ...] | None = None,
    ):
        super().__init__("openvino")
        self._library = library = _library()
        self._core, self._path = library.Core(), Path(path)
        self._settings = _settings_of(threads, precision)
        self._tile_shape = tile_shape
        compiled = self._compile()
        names = {text: name for name, text in _TYPES.items()}
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = names.get(used, used)
        if precision not in (None, self.precision):
            raise DeviceError(
                f"OpenVINO calculates in {self.precision} on this processor, not in {precision}; "
                "leave the precision open."
            )
        # OpenVINO forgets the names of free axes, which the choice of smaller windows needs.
        self.input_shape, self.output_shape = read_shapes(self._path)
        half = compiled.input(0).element_type == library.Type.f16
        self._dtype = np.float16 if half else np.float32
        used_threads = compiled.get_property("INFERENCE_NUM_THREADS")
        version = library.__version__.split("-")[0]
        self.description = f"OpenVINO {version}, CPU, {used_threads} threads, {self.precision}"
        self._loaded = compiled.create_infer_request()

    def terminate(self) -> None:
        super().terminate()
        request = self._loaded
        if request is not None:
            request.cancel()

    def _run(self, tile: np.ndarray) -> np.ndarray:
        if self._loaded is None or self._tile_shape not in (None, tile.shape):
            self._loaded = self._tile_shape = None
            self._loaded = self._compile().create_infer_request()
        try:
            if self._tile_shape:  # its own memory for each result, which therefore needs no copy
                output = self._loaded.model_outputs[0]
                memory = self._library.Tensor(output.element_type, output.shape)
                self._loaded.set_output_tensor(0, memory)
                return_freed_memory()
            self._loaded.start_async({0: np.ascontiguousarray(tile, self._dtype)}, None, True)
            if self._terminated.is_set():  # between the caller's look and the start
                self._loaded.cancel()
            self._loaded.wait()
            logits = self._loaded.get_output_tensor(0).data
            return logits.astype(np.float32, copy=self._tile_shape is None)
        except Exception as error:
            if is_out_of_memory(error):
                # What is left of it keeps the shapes that did not fit, and fails for small windows.
                self._loaded = None
            raise

    def _compile(self):
        try:
            model = self._core.read_model(self._path)
            if self._tile_shape:
                wanted = self._library.PartialShape(list(self._tile_shape))
                if model.inputs[0].partial_shape.compatible(wanted):
                    model.reshape(wanted)
                else:  # said in other words by who compares it with the package
                    self._tile_shape = None
            if self._calculates_in_half():
                _halve_weights(model)
            return self._core.compile_model(model, "CPU", self._settings)
        except Exception as error:
            if is_out_of_memory(error):
                raise failure(error, "OpenVINO") from None
            try:
                read_shapes(self._path)
            except (OSError, ValueError, LookupError):
                raise PackageError(
                    f"{self._path} is no ONNX model ({reason(error)}); get the package again."
                ) from None
            raise DeviceError(
                f"{self._path.name} cannot run on openvino ({reason(error)}); choose another "
                "device."
            ) from None

    def _calculates_in_half(self) -> bool:
        name = "INFERENCE_PRECISION_HINT"
        used = self._settings.get(name) or self._core.get_property("CPU", name).get_type_name()
        return used != "f32"


def _halve_weights(model) -> None:
    """Keep the weights of ``model`` in float16: OpenVINO holds on to them beside those in the
    format it calculates in. Without effect where a release has this transformation elsewhere."""
    with contextlib.suppress(ImportError):
        from openvino._offline_transformations import compress_model_transformation

        compress_model_transformation(model)


def _library():
    with _hidden("openvino_telemetry"):  # importing OpenVINO would report the import to Google
        return import_library(
            "openvino", "OpenVINO", "install it with `mimsegment runtime install openvino`"
        )


def _settings_of(threads: int | None, precision: str | None) -> dict[str, str | int]:
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    check_precision(precision)
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = _TYPES[precision]
    return settings


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Let imports of ``module`` fail, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
