"""Real sessions on tiny networks; what breaks the libraries is put in their place."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from MIMSegment.Logic import openvino_session
from MIMSegment.Logic.errors import Cancelled, DeviceError, PackageError
from MIMSegment.Logic.runtime import OnnxSession, open_session
from onnx_writer import node, write_onnx
from runtime_cases import (
    LIBRARIES,
    OPENVINO,
    TIMEOUT,
    TORCH,
    above_threshold,
    relu_onnx,
    run_python,
    write_torchscript,
)
from tiny_package import threshold_onnx


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
def test_promised_shape_of_the_tiles_changes_no_result(network, tile, device):
    session = open_session(network, device, "float32", tile_shape=tile.shape)
    results = [(t, session(t)) for t in (tile, 1 - tile, tile[..., :-4], tile)]
    for given, found in results:  # none is overwritten by a later one
        np.testing.assert_allclose(found, above_threshold(given), atol=1e-6)


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
    session = open_session(relu_onnx(tmp_path / "m.onnx", ["b", 3, "y", "x"]), device, "float32")
    tile = np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(session(tile), np.maximum(tile, 0))
    session.check_channels(3, 3, "package")


@pytest.mark.parametrize("device", LIBRARIES)
def test_shapes_keep_the_names_of_free_axes(tmp_path, device):
    path = relu_onnx(tmp_path / "m.onnx", ["batch", 3, 16, "8*y", None])
    session = open_session(path, device)
    for shape in (session.input_shape, session.output_shape):
        assert shape[1:4] == (3, 16, "8*y")
        assert not any(isinstance(n, int) for n in (shape[0], shape[4]))


@pytest.mark.parametrize("device", LIBRARIES)
def test_half_precision_network_takes_and_returns_float32(tmp_path, device):
    path = relu_onnx(tmp_path / "m.onnx", [1, 1, 4, 4, 4], np.float16)
    tile = np.random.default_rng(0).standard_normal((1, 1, 4, 4, 4)).astype(np.float32)
    found = open_session(path, device)(tile)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.maximum(tile, 0), rtol=1e-2)


def test_onnx_runtime_names_the_precision_of_the_file(tmp_path):
    path = relu_onnx(tmp_path / "m.onnx", [1, 1, 4, 4, 4], np.float16)
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
    for precision in {"bfloat16", "float16"} - {fastest.precision}:
        try:
            assert open_session(network, "openvino", precision).precision == precision
        except DeviceError as error:  # not every processor has it
            assert precision in str(error)


@OPENVINO
def test_openvino_that_takes_another_precision_than_asked_for_is_refused(network, monkeypatch):
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    monkeypatch.setattr(openvino_session, "_settings_of", lambda threads, precision: settings)
    with pytest.raises(DeviceError, match=r"calculates in float32 .* not in bfloat16"):
        open_session(network, "openvino", "bfloat16")


@OPENVINO
def test_openvino_does_not_report_to_its_makers(network):
    assert run_python(
        "import sys; from MIMSegment.Logic.runtime import open_session; "
        f"open_session({str(network)!r}, 'openvino'); "
        "print([m for m in sys.modules if m.startswith('openvino_telemetry')])"
    ).strip() == "[]"  # fmt: skip


def test_nothing_heavy_is_imported_before_a_session_is_opened():
    loaded = run_python(
        "import sys, MIMSegment.Logic.runtime; "
        "print({'onnxruntime', 'openvino', 'torch'} & set(sys.modules))"
    )
    assert loaded.strip() == "set()"


@pytest.mark.parametrize("device", LIBRARIES)
def test_terminate_stops_the_running_call_and_all_later_ones(tmp_path, device):
    path = threshold_onnx(tmp_path / "slow.onnx", delay=1000)
    session = open_session(path, device, "float32", threads=1)
    with ThreadPoolExecutor() as pool:
        call = pool.submit(session, np.ones((1, 1, 96, 96, 96), np.float32))
        time.sleep(0.3)  # what goes on inside the library cannot be seen from here
        assert not call.done()
        session.terminate()
        with pytest.raises(Cancelled):
            call.result(TIMEOUT)
    with pytest.raises(Cancelled):
        session(np.ones((1, 1, 4, 4, 4), np.float32))


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


_LARGE_NETWORK = """
import sys
import numpy as np
from MIMSegment.Logic.runtime import open_session
session = open_session(sys.argv[1], "openvino", sys.argv[2], tile_shape=(1, 1024, 2, 2, 2))
session(np.ones((1, 1024, 2, 2, 2), np.float32))
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * 4096)
"""


@OPENVINO
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_openvino_holds_no_weights_in_float32_where_it_calculates_in_half(tmp_path):
    constants = {f"w{i}": np.full((1024, 1024, 3, 3, 3), 1e-4, np.float32) for i in range(2)}
    names = ["image", "between", "logits"]
    nodes = [node("Conv", [names[i], f"w{i}"], names[i + 1], pads=[1] * 6) for i in range(2)]
    shape = [1, 1024, 2, 2, 2]
    path = write_onnx(tmp_path / "large.onnx", nodes, shape, shape, constants)
    weights = sum(array.nbytes for array in constants.values())
    try:
        open_session(path, "openvino", "bfloat16")
    except DeviceError as error:
        pytest.skip(str(error))
    used = {
        precision: int(run_python(_LARGE_NETWORK, str(path), precision))
        for precision in ("float32", "bfloat16")
    }
    # Twice, as they came and as it calculates with them: in float32 8 bytes for each, else 4.
    assert used["float32"] - used["bfloat16"] > 0.8 * weights


@OPENVINO
def test_openvino_in_float32_rounds_no_weight(tmp_path):
    weight = np.full((2, 1, 1, 1, 1), 1 + 2**-20, np.float32)  # 1 in half precision
    path = write_onnx(
        tmp_path / "fine.onnx",
        [node("Conv", ["image", "weight"], "logits")],
        ["b", 1, "z", "y", "x"],
        ["b", 2, "z", "y", "x"],
        {"weight": weight},
    )
    tile = np.ones((1, 1, 4, 4, 4), np.float32)
    assert (open_session(path, "openvino", "float32")(tile) == 1 + 2**-20).all()
