"""Libraries, devices and files that do not do what was hoped: a sentence each, and the way on."""

import sys
import types

import numpy as np
import pytest

from MIMSegment.Logic.errors import DeviceError, OutOfMemory, PackageError
from MIMSegment.Logic.onnx_header import read_shapes
from MIMSegment.Logic.runtime import open_session
from MIMSegment.Logic.session import BaseSession, failure, reason
from runtime_cases import (
    LIBRARIES,
    OPENVINO,
    TORCH,
    above_threshold,
    relu_onnx,
    run_python,
    unpooling_onnx,
    write_torchscript,
)


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
    session = open_session(relu_onnx(tmp_path / "m.onnx", [1, 1, 4, 4, 4]), device)
    with pytest.raises(DeviceError, match=r"failed \(.+\); try another device") as caught:
        session(np.zeros((1, 1, 5, 5, 5), np.float32))
    assert not isinstance(caught.value, OutOfMemory) and "\n" not in str(caught.value)


@OPENVINO
def test_a_network_that_openvino_cannot_load_again_is_told_once(network, tile):
    session = open_session(network, "openvino", tile_shape=tile.shape)
    unpooling_onnx(network, 1, 2)
    with pytest.raises(DeviceError, match=r"cannot run on openvino .*choose another") as caught:
        session(tile[..., :-4])
    assert "try another" not in str(caught.value)
    network.unlink()
    with pytest.raises(PackageError, match=r"is no ONNX model .*get the package again"):
        session(tile)


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


class Echo(BaseSession):
    def _run(self, tile):
        return tile


@pytest.mark.parametrize(
    ("shape", "says"), [((1, 2, 8, 8), "takes 2"), ((1, 1), "takes 1"), ((None, 3, 8, 8, 8), "3")]
)
def test_channels_that_do_not_fit_the_package_are_refused(shape, says):
    session = Echo("cpu")
    session.input_shape = session.output_shape = shape
    with pytest.raises(PackageError, match=says):
        session.check_channels(1, 1, "package")


def test_channels_that_the_file_leaves_open_fit():
    session = Echo("cpu")
    session.input_shape = session.output_shape = ("b", "c", 8, 8, 8)
    session.check_channels(1, 2, "package")
