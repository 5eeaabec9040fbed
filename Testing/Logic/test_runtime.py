"""Real sessions on tiny networks; what breaks the libraries is put in their place."""

import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

from MIMSegment.Logic.errors import Cancelled, DeviceError, OutOfMemory, PackageError
from MIMSegment.Logic.onnx_header import read_shapes
from MIMSegment.Logic.runtime import OnnxSession, open_session
from MIMSegment.Logic.session import BaseSession, failure, reason
from tiny_package import threshold_onnx

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60


def installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


OPENVINO = pytest.mark.skipif(not installed("openvino"), reason="OpenVINO is not installed")
TORCH = pytest.mark.skipif(not installed("torch"), reason="PyTorch is not installed")
LIBRARIES = ["cpu", pytest.param("openvino", marks=OPENVINO)]


@pytest.fixture
def network(tmp_path):
    return threshold_onnx(tmp_path / "model.onnx")


@pytest.fixture
def tile():
    return np.random.default_rng(0).random((2, 1, 6, 7, 8), np.float32)


def above_threshold(tile: np.ndarray) -> np.ndarray:
    return np.concatenate([0.5 - tile, tile - 0.5], axis=1)


def write_onnx(path: Path, shape: list, dtype=None, operator: str = "Relu") -> Path:
    """A network of one operation."""
    from onnx import TensorProto, helper, save

    dtype = dtype or TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["image"], ["logits"])],
        "one",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("logits", dtype, shape)],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def write_torchscript(path: Path) -> Path:
    import torch

    class Threshold(torch.nn.Module):
        def forward(self, image):
            return torch.cat([0.5 - image, image - 0.5], 1)

    torch.jit.script(Threshold()).save(str(path))
    return path


def run_python(code: str, **env: str) -> str:
    """Run ``code`` in a fresh interpreter; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def fake_onnxruntime(
    monkeypatch, providers=("CPUExecutionProvider",), used=None, preload=None, on_gpu=None
):
    """A library that lists ``providers`` and whose sessions say that they use ``used``.

    ``on_gpu`` operations of three run on the first provider; None: it does not tell.
    """
    values = types.SimpleNamespace(name="x", type="tensor(float)", shape=[1, 1, 8, 8, 8])

    class InferenceSession:
        def __init__(self, path, options, providers, enable_fallback):
            self.provider = providers[0][0]

        def get_providers(self):
            return used if used is not None else [self.provider, "CPUExecutionProvider"]

        def get_inputs(self):
            return [values]

        get_outputs = get_inputs

        def get_provider_graph_assignment_info(self):
            if on_gpu is None:
                raise AttributeError
            names = [self.provider] * on_gpu + ["CPUExecutionProvider"] * (3 - on_gpu)
            return [types.SimpleNamespace(ep_name=n, get_nodes=lambda: [None]) for n in names]

    module = types.ModuleType("onnxruntime")
    module.__version__ = "9.9.9"
    module.get_available_providers = lambda: list(providers)
    module.SessionOptions = lambda: types.SimpleNamespace(
        add_session_config_entry=lambda key, value: None
    )
    module.RunOptions = types.SimpleNamespace
    module.InferenceSession = InferenceSession
    if preload:
        module.preload_dlls = lambda: print(preload)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


@pytest.mark.parametrize("device", LIBRARIES)
def test_logits_are_those_of_the_network(network, tile, device):
    session = open_session(network, device, "float32")
    found = session(tile)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, above_threshold(tile), atol=1e-6)
    assert (session.device, session.precision) == (device, "float32")
    assert session.input_shape[1] == 1 and session.output_shape[1] == 2
    assert not any(isinstance(n, int) for n in session.input_shape[2:])


@pytest.mark.parametrize("device", LIBRARIES)
def test_result_stays_when_the_session_is_called_again(network, tile, device):
    session = open_session(network, device, "float32")
    first = session(tile)
    kept = first.copy()
    session(1 - tile)
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("device", LIBRARIES)
def test_strided_view_is_taken_as_it_is(network, tile, device):
    session = open_session(network, device, "float32")
    view = tile[..., ::-1, ::2]
    np.testing.assert_allclose(session(view), above_threshold(view), atol=1e-6)


@pytest.mark.parametrize("device", LIBRARIES)
def test_network_for_slices_takes_slices(tmp_path, device):
    session = open_session(write_onnx(tmp_path / "m.onnx", ["b", 3, "y", "x"]), device, "float32")
    tile = np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(session(tile), np.maximum(tile, 0))
    session.check_channels(3, 3, "package")


@pytest.mark.parametrize("device", LIBRARIES)
def test_shapes_keep_the_names_of_free_axes(tmp_path, device):
    path = write_onnx(tmp_path / "m.onnx", ["batch", 3, 16, "8*y", None])
    session = open_session(path, device)
    for shape in (session.input_shape, session.output_shape):
        assert shape[1:4] == (3, 16, "8*y")
        assert not any(isinstance(n, int) for n in (shape[0], shape[4]))


@pytest.mark.parametrize("device", LIBRARIES)
def test_half_precision_network_takes_and_returns_float32(tmp_path, device):
    from onnx import TensorProto

    path = write_onnx(tmp_path / "m.onnx", [1, 1, 4, 4, 4], TensorProto.FLOAT16)
    tile = np.random.default_rng(0).standard_normal((1, 1, 4, 4, 4)).astype(np.float32)
    found = open_session(path, device)(tile)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.maximum(tile, 0), rtol=1e-2)


def test_onnx_runtime_names_the_precision_of_the_file(tmp_path):
    from onnx import TensorProto

    path = write_onnx(tmp_path / "m.onnx", [1, 1, 4, 4, 4], TensorProto.FLOAT16)
    assert OnnxSession(path).precision == "float16"
    with pytest.raises(DeviceError, match="which is float16"):
        OnnxSession(path, precision="float32")


@pytest.mark.parametrize("device", LIBRARIES)
def test_threads_are_those_asked_for(network, device):
    assert "1 threads" in open_session(network, device, threads=1).description


@OPENVINO
def test_openvino_says_which_precision_it_really_uses(network):
    fastest = open_session(network, "openvino")
    assert fastest.precision in fastest.description
    others = {"bfloat16", "float16"} - {fastest.precision}
    refused = 0
    for precision in others:
        try:
            assert open_session(network, "openvino", precision).precision == precision
        except DeviceError as error:
            refused += 1
            assert precision in str(error)
    assert refused


@OPENVINO
def test_openvino_does_not_report_to_its_makers(network):
    assert run_python(
        "import sys; from MIMSegment.Logic.runtime import open_session; "
        f"open_session({str(network)!r}, 'openvino'); "
        "print([m for m in sys.modules if m.startswith('openvino_telemetry')])"
    ).strip() == "[]"  # fmt: skip


@pytest.mark.parametrize(
    "content", [b"", b"x", b"not a network", bytes(100), b"\x3a\x05abc", b"\x38\x05"]
)
def test_header_of_a_file_that_is_no_network_is_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises((ValueError, LookupError)):
        read_shapes(path)


def test_unknown_precision_and_device_are_refused(network):
    with pytest.raises(DeviceError, match="'tpu' is no device"):
        open_session(network, "tpu")
    with pytest.raises(DeviceError, match="int4"):
        open_session(network, "cpu", "int4")


def test_nothing_heavy_is_imported_before_a_session_is_opened():
    loaded = run_python(
        "import sys, MIMSegment.Logic.runtime; "
        "print({'onnxruntime', 'openvino', 'torch'} & set(sys.modules))"
    )
    assert loaded.strip() == "set()"


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_missing_library_is_named_with_the_way_to_install_it(network, device, monkeypatch):
    module = {"cpu": "onnxruntime", "openvino": "openvino"}[device]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match="is not installed; install it with `"):
        open_session(network, device)


def test_broken_library_is_named_with_its_complaint(network, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('DLL load failed: VCRUNTIME140')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(DeviceError, match=r"ONNX Runtime is installed but .*VCRUNTIME140"):
        open_session(network, "cpu")


def test_automatic_choice_goes_on_to_the_next_device_that_works(network, tile, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    session = open_session(network)
    assert session.device == "cpu"
    np.testing.assert_allclose(session(tile), above_threshold(tile), atol=1e-6)


def test_device_that_the_library_does_not_have_is_refused(network, monkeypatch):
    fake_onnxruntime(monkeypatch)
    with pytest.raises(DeviceError, match=r"9\.9\.9 has no CUDAExecutionProvider; install it"):
        open_session(network, "cuda")


def test_library_that_only_claims_to_use_the_gpu_is_caught(network, monkeypatch, capsys):
    claimed, used = ["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]
    complaint = "Failed to load libcublasLt.so.13: no such file"
    fake_onnxruntime(monkeypatch, claimed, used, preload=f"{complaint}\nPlease see the web page")
    with pytest.raises(DeviceError, match=f"could not start it .{complaint}"):
        open_session(network, "cuda")
    assert capsys.readouterr().out == ""


def test_provider_that_leaves_the_whole_network_to_the_cpu_is_refused(network, monkeypatch):
    fake_onnxruntime(monkeypatch, ["CoreMLExecutionProvider"], on_gpu=0)
    with pytest.raises(DeviceError, match="it would run on the CPU"):
        open_session(network, "coreml")


@pytest.mark.parametrize(
    ("on_gpu", "said"), [(2, "1 of 3 operations on the CPU"), (3, "cuda,"), (None, "cuda,")]
)
def test_description_tells_what_the_provider_leaves_to_the_cpu(network, monkeypatch, on_gpu, said):
    fake_onnxruntime(monkeypatch, ["CUDAExecutionProvider"], on_gpu=on_gpu)
    assert said in open_session(network, "cuda").description


@pytest.mark.parametrize("device", ["auto", *LIBRARIES])
def test_file_that_is_no_network_is_a_bad_package(tmp_path, device):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(PackageError, match=r"model\.onnx is no ONNX model"):
        open_session(path, device)
    with pytest.raises(PackageError, match=r"other\.onnx is missing"):
        open_session(tmp_path / "other.onnx", device)


@pytest.mark.parametrize("device", LIBRARIES)
def test_failure_of_the_library_is_a_sentence(tmp_path, device):
    session = open_session(write_onnx(tmp_path / "m.onnx", [1, 1, 4, 4, 4]), device)
    with pytest.raises(DeviceError, match=r"failed \(.+\); try another device") as caught:
        session(np.zeros((1, 1, 5, 5, 5), np.float32))
    assert not isinstance(caught.value, OutOfMemory) and "\n" not in str(caught.value)


@pytest.mark.parametrize("device", LIBRARIES)
def test_terminate_stops_the_running_call_and_all_later_ones(tmp_path, device):
    path = threshold_onnx(tmp_path / "slow.onnx", delay=1000)
    session = open_session(path, device, "float32", threads=1)
    outcome = []

    def call():
        try:
            outcome.append(session(np.ones((1, 1, 96, 96, 96), np.float32)))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert not outcome
    session.terminate()
    thread.join(20)
    assert isinstance(outcome[0], Cancelled)
    with pytest.raises(Cancelled):
        session(np.ones((1, 1, 4, 4, 4), np.float32))


OUT_OF_MEMORY = """
import resource
import numpy as np
from MIMSegment.Logic.errors import OutOfMemory
from MIMSegment.Logic.runtime import open_session

session = open_session({path!r}, {device!r}, trusted=True)
small = np.zeros((1, 1, 16, 16, 16), np.float32)
session(small)
used = next(int(s.split()[1]) for s in open("/proc/self/status") if s.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
try:
    session(np.zeros((1, 1, 256, 256, 192), np.float32))
except OutOfMemory as error:
    print(error)
print(session(small).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize(
    "device", [*LIBRARIES, pytest.param("torch", marks=TORCH)]
)  # fmt: skip
def test_after_running_out_of_memory_a_smaller_window_still_works(tmp_path, network, device):
    path = write_torchscript(tmp_path / "m.ts") if device == "torch" else network
    device = "cpu" if device == "torch" else device
    said, shape = run_python(OUT_OF_MEMORY.format(path=str(path), device=device)).splitlines()
    assert "not enough memory for a window of 1 x 1 x 256 x 256 x 192" in said
    assert shape == "(1, 2, 16, 16, 16)"


@pytest.mark.parametrize(
    "text",
    [
        "bfc_arena.cc:360 AllocateRawInternal Failed to allocate memory for requested buffer of 9",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=x",
        "Status Message: std::bad_alloc",
        "MLOperatorAuthorImpl.cpp(2482) 8007000E Not enough memory resources are available",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8505180160 bytes.",
    ],
)
def test_every_library_runs_out_of_memory_in_its_own_words(text):
    assert isinstance(failure(RuntimeError(text), "It"), OutOfMemory)


def test_reason_is_the_telling_line_of_a_native_error():
    openvino = "Exception from src/inference.cpp:224:\nException from src/node.cpp:7:\nBad shape.\n"
    assert reason(RuntimeError(openvino)) == "Bad shape"
    onnx = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status. Status Message: no kernel"
    assert reason(RuntimeError(onnx)) == "no kernel"
    assert reason(RuntimeError()) == "RuntimeError"


def test_torchscript_is_not_opened_before_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "m.ts").write_bytes(b"a program")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PackageError, match=r"m\.ts is TorchScript, which is a program .*trust"):
        open_session(tmp_path / "m.ts")
    with pytest.raises(DeviceError, match="PyTorch is not installed"):
        open_session(tmp_path / "m.ts", trusted=True)


@TORCH
def test_trusted_torchscript_runs(tmp_path, tile):
    session = open_session(write_torchscript(tmp_path / "m.ts"), "cpu", trusted=True)
    np.testing.assert_allclose(session(tile), above_threshold(tile), atol=1e-6)
    session.check_channels(1, 2, "package")
    session.terminate()
    with pytest.raises(Cancelled):
        session(tile)


@TORCH
def test_torchscript_that_cannot_run_is_refused(tmp_path):
    path = write_torchscript(tmp_path / "m.ts")
    with pytest.raises(DeviceError, match="cuda or cpu"):
        open_session(path, "openvino", trusted=True)
    with pytest.raises(DeviceError, match="bfloat16"):
        open_session(path, "cpu", "bfloat16", trusted=True)
    path.write_bytes(b"garbage")
    with pytest.raises(PackageError, match=r"m\.ts is no TorchScript model"):
        open_session(path, "cpu", trusted=True)


@pytest.mark.parametrize(
    ("shape", "says"), [((1, 2, 8, 8), "takes 2"), ((1, 1), "takes 1"), ((None, 3, 8, 8, 8), "3")]
)
def test_channels_that_do_not_fit_the_package_are_refused(shape, says):
    session = BaseSession("cpu")
    session.input_shape = session.output_shape = shape
    with pytest.raises(PackageError, match=says):
        session.check_channels(1, 1, "package")


def test_channels_that_the_file_leaves_open_fit():
    session = BaseSession("cpu")
    session.input_shape = session.output_shape = ("b", "c", 8, 8, 8)
    session.check_channels(1, 2, "package")
