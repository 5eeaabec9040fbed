"""The masked-reconstruction check: what it measures, what it says, and its way through a package.

The network here interpolates, so it restores smooth images and fails on noise.
"""

from dataclasses import replace

import numpy as np
import pytest

from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.expectations import Expectations, ReconstructionRange
from MIMSegment.Logic.finding import Severity
from MIMSegment.Logic.inference import InferenceOptions, run_package
from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.package import load_package, write_package
from MIMSegment.Logic.reconstruction import ReconstructionError, hidden_blocks, judge, measure
from MIMSegment.Logic.volume import Geometry, Volume
from onnx_writer import node, write_onnx
from runtime_cases import OPENVINO, unpooling_onnx
from tiny_package import BRIGHT, MONAI, threshold_onnx, threshold_spec

PATCH, BLOCK, RATIO = (8, 16, 16), (2, 4, 4), 0.6
KNOWN = ReconstructionRange(
    "models/reconstruction.onnx", PATCH, BLOCK, RATIO, (0.1, 0.2, 0.3), ((0.1, 0.2, 0.3),), 20
)


def constant(tile):
    """The worst network that is no nonsense: the mean of what is visible."""
    image, visible = tile[:, :-1], tile[:, -1:]
    return np.full_like(image, (image * visible).sum() / visible.sum())


def test_masks_hide_the_ratio_in_whole_blocks_and_are_the_same_every_time():
    mask = hidden_blocks(PATCH, BLOCK, RATIO, 3)
    blocks = mask.reshape(4, 2, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(64, 32)
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
    assert (~blocks.any(axis=1)).sum() == round(RATIO * 64)
    assert np.array_equal(mask, hidden_blocks(PATCH, BLOCK, RATIO, 3))
    assert not np.array_equal(mask, hidden_blocks(PATCH, BLOCK, RATIO, 4))


def test_a_perfect_network_has_no_error_and_a_constant_one_misses_everything():
    array = np.random.default_rng(0).normal(size=(1, 20, 40, 40)).astype(np.float32)
    seen = []

    def perfect(tile):
        seen.append(tile)
        return np.zeros_like(tile[:, :-1])

    assert measure(array, PATCH, BLOCK, RATIO, constant).total == pytest.approx(1.0, abs=0.02)
    assert measure(0 * array, PATCH, BLOCK, RATIO, perfect).total == 0
    assert len(seen) == 8


def test_the_network_never_sees_what_is_hidden():
    array = np.random.default_rng(0).normal(5, 1, size=(1, 8, 16, 16)).astype(np.float32)

    def spy(tile):
        hidden = tile[:, -1:] == 0
        assert (tile[:, :-1][hidden] == 0).all() and (tile[:, :-1][~hidden] != 0).all()
        return tile[:, :-1]

    measure(array, PATCH, BLOCK, RATIO, spy)


def test_an_image_smaller_than_a_crop_is_scored_inside_itself_only():
    array = np.random.default_rng(0).normal(5, 1, size=(1, 4, 9, 9)).astype(np.float32)
    error = measure(array, PATCH, BLOCK, RATIO, constant)
    assert np.isfinite(error.total) and error.total > 0.9


@pytest.mark.parametrize(
    ("total", "severity"),
    [(0.05, Severity.NOTE), (0.35, Severity.NOTE), (0.5, Severity.WARNING), (0.9, Severity.ALERT)],
)
def test_the_finding_has_the_numbers_of_the_scan_and_of_the_training(total, severity):
    finding = judge(ReconstructionError(total, (total,)), KNOWN, ["CT"])
    assert finding.severity is severity
    assert (
        f"{100 * total:.0f} % of the hidden test parts were not restored (10 % to 30 % in 20 scans "
        "like its training data)" in finding.message
    )


def test_a_scan_that_is_nearly_empty_has_no_absurd_figures():
    known = replace(KNOWN, tissue_errors=(0.8, 1.0, 1.1))
    whole = judge(ReconstructionError(1.8e18, (1.8e18,)), KNOWN, ["CT"])
    tissue = judge(ReconstructionError(0.2, (0.2,), 1.8e18), known, ["CT"])
    assert "over 100 % of the hidden test parts" in whole.message
    assert "with over 10 times its variance" in tissue.message


def test_the_input_that_stands_out_is_named():
    known = replace(KNOWN, input_errors=((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    finding = judge(ReconstructionError(0.9, (1.2, 0.7)), known, ["T2w", "ADC"])
    assert "above all of T2w, over 100 %" in finding.message


def test_what_only_tissue_betrays_is_told_with_its_own_numbers():
    known = replace(KNOWN, tissue_errors=(0.8, 1.0, 1.1))
    alike = judge(ReconstructionError(0.25, (0.25,), 1.2), known, ["CT"])
    assert alike.severity is Severity.NOTE
    finding = judge(ReconstructionError(0.25, (0.25,), 1.6), known, ["CT"])
    assert finding.severity is Severity.WARNING
    assert "with 1.60 times its variance as error (0.80 to 1.10 in 20 scans" in finding.message


def test_air_does_not_dilute_the_error_in_tissue():
    array = np.full((1, 8, 32, 16), -5.0, np.float32)
    array[..., 8:] = np.random.default_rng(0).normal(5, 1, (8, 32, 8))

    def knows_the_border_only(tile):
        return np.broadcast_to(np.where(np.arange(16) < 8, -5.0, 5.0), tile[:, :1].shape)

    error = measure(array, PATCH, BLOCK, RATIO, knows_the_border_only)
    assert error.total < 0.1 and error.tissue == pytest.approx(1.0, abs=0.1)


@pytest.fixture
def package(tmp_path):
    """Its reconstruction network gives back the visible part, so hidden voxels are 0."""
    files = {
        "models/model.onnx": threshold_onnx(tmp_path / "model.onnx"),
        "models/reconstruction.onnx": identity_onnx(tmp_path / "reconstruction.onnx"),
    }
    known = Expectations(images=20, reconstruction=KNOWN)
    return write_package(
        tmp_path / "package", "test", "Test", threshold_spec(), [BRIGHT], files, "# Test\n",
        "Apache-2.0\n", MONAI, expectations=known,
    )  # fmt: skip


def identity_onnx(path):
    """(b, 2, z, y, x) → (b, 1, z, y, x): the first channel."""
    weight = np.array([1, 0], np.float32).reshape(1, 2, 1, 1, 1)
    nodes, space = [node("Conv", ["image", "weight"], "logits")], ["z", "y", "x"]
    return write_onnx(path, nodes, ["batch", 2, *space], ["batch", 1, *space], {"weight": weight})


def test_a_package_keeps_its_ranges_and_its_network(package):
    loaded = load_package(package.path)
    assert loaded.expectations == Expectations(images=20, reconstruction=KNOWN)
    assert set(loaded.checksums) == {*package.spec.models, KNOWN.model, "labels.csv"}
    (package.path / KNOWN.model).unlink()
    with pytest.raises(PackageError, match=r"reconstruction\.onnx is missing"):
        load_package(package.path)


def test_inference_hands_the_finding_over_with_the_result(package):
    volume = Volume(np.random.default_rng(0).random((1, 20, 40, 40)), Geometry.from_parts(
        (20, 40, 40), (1.0, 1.0, 1.0)))  # fmt: skip
    said, sessions = [], []
    result = run_package(volume, package, report=said.append, opened=sessions.extend)
    findings = {finding.code: finding for finding in result.findings}
    assert findings["reconstruction"].severity is Severity.ALERT
    assert "Comparing the scan with those that the model knows" in said
    assert len(sessions) == 2  # both can be stopped


@OPENVINO
def test_a_network_that_openvino_cannot_load_is_compared_on_the_other_runtime(package):
    unpooling_onnx(package.path / KNOWN.model, 2, 1)
    volume = Volume(np.random.default_rng(0).random((1, 20, 40, 40)), Geometry.from_parts(
        (20, 40, 40), (1.0, 1.0, 1.0)))  # fmt: skip
    result = run_package(volume, package, InferenceOptions("openvino", threads=1))
    (finding,) = [f for f in result.findings if f.code == "reconstruction"]
    assert finding.severity is Severity.ALERT


def test_the_finding_arrives_from_the_inference_process(package):
    volume = Volume(np.random.default_rng(0).random((1, 20, 40, 40)), Geometry.from_parts(
        (20, 40, 40), (1.0, 1.0, 1.0)))  # fmt: skip
    with JobQueue() as queue:
        job = queue.submit(volume, package.path)
        assert queue.wait(job, timeout=60)
    assert job.error is None
    assert "reconstruction" in {finding.code for finding in job.result.findings}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 3, "color": 1}, "unknown field 'color'"),
        ({"spacing": [[3, 1], [1, 1], [1, 1]]}, "does not ascend"),
        ({"spacing": "coarse"}, "wrong type"),
        ({"structures": [{"value": 1, "volume_ml": [1, 2], "side": "up"}]}, "neither left nor"),
        ({"structures": [{"value": 1}]}, "volume_ml"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_field(change, message):
    with pytest.raises(PackageError, match=message):
        Expectations.from_dict(change, "metadata.json")
