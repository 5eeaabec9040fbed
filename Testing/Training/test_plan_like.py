"""A cache that is planned like a checkpoint or another cache, so that its network is the same."""

import numpy as np
import pytest

import prepare
from mim import architectures
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import save_checkpoint
from mim.data import read_cache
from mim.networks import NetworkSettings
from mim.plan_like import planned_shape
from mim.transfer import load_pretrained
from MIMSegment.Logic.errors import InputError
from small_sets import decathlon, nnunet, picture, read

SHAPE = ("patch", "strides", "kernel_sizes", "dims")
SETTINGS = NetworkSettings((4, 8, 8), (1, 1, 1))


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A cache of isotropic voxels, and a checkpoint of a network for it."""
    root = tmp_path_factory.mktemp("before")
    decathlon(root / "scans", count=3)
    options = PrepareOptions(spacing=(1, 1, 1), patch_voxels=4000, stages=3, jobs=1)
    prepare_dataset(root / "scans", root / "cache", options)
    plan = read_cache(root / "cache").plan
    save(root / "last.pt", SETTINGS, plan)
    return root


@pytest.fixture
def scans(tmp_path):
    """Scans of thick slices, of two inputs."""
    return nnunet(tmp_path / "scans", {"background": 0, "box": 1, "other": 4})


def save(path, settings, plan, patch=()):
    """Write a checkpoint as of pretrain.py."""
    config = architectures.configure(settings, plan, plan["patch"], 1, 1)
    metadata = {"network": config, "plan": plan, "recipe": {"patch": list(patch)}}
    content = {"metadata": metadata, "model": architectures.build(config).state_dict()}
    save_checkpoint(path, content)


def prepared(scans, cache, *arguments):
    """Prepare by the command; the plan."""
    assert prepare.main([str(scans), str(cache), "--jobs", "1", *map(str, arguments)]) == 0
    return read(cache, "plan.json")


def transferred(cache, checkpoint):
    opened = read_cache(cache)
    config = architectures.configure(SETTINGS, opened.plan, opened.patch, opened.channels, 3)
    return load_pretrained(architectures.build(config), checkpoint)


def test_a_network_for_the_data_alone_loses_weights_and_the_report_says_what_to_do(
    before, scans, tmp_path
):
    plan = prepared(scans, tmp_path / "cache", "--patch-voxels", 4000, "--stages", 3)
    assert plan["kernel_sizes"] != read(before / "cache", "plan.json")["kernel_sizes"]
    report = transferred(tmp_path / "cache", before / "last.pt")
    assert min(report.shares.values()) < 0.9
    (warning,) = [note for note in report.notes if "stay fresh" in note]
    assert warning.startswith("WARNING: ") and f"prepare.py --like {before / 'last.pt'}" in warning
    assert "encoder and decoder" in warning and "shape (" in warning


@pytest.mark.parametrize("source", ["cache", "last.pt"])
def test_a_cache_like_the_pre_training_takes_every_weight(before, scans, tmp_path, source, capsys):
    plan = prepared(scans, tmp_path / "cache", "--like", before / source)
    old = read(before / "cache", "plan.json")
    assert [plan[key] for key in SHAPE] == [old[key] for key in SHAPE]
    assert plan["preprocessing"]["spacing"] == [1, 1, 1] and len(plan["inputs"]) == 2
    assert f"as in {before / source}" in capsys.readouterr().out
    case = read(tmp_path / "cache", "cases.json")["cases"][0]
    assert case["shape"] == [2, 36, 20, 18]  # 12 slices of 3 mm
    report = transferred(tmp_path / "cache", before / "last.pt")
    assert set(report.missing.values()) == {"output layer of another task"}
    assert not [note for note in report.notes if "WARNING" in note]


def test_intensities_are_normalized_by_the_data_and_not_as_before(before, scans, tmp_path):
    plan = prepared(
        scans, tmp_path / "cache", "--like", before / "cache", "--modality", "CT", "--held-back", 0
    )
    ct = plan["preprocessing"]["normalization"][0]
    known = read(tmp_path / "cache", "fingerprint.json")["intensities"][0]
    assert ct["scheme"] == "ct" and ct["mean"] == pytest.approx(known["mean"], abs=1e-3)


def test_of_a_checkpoint_the_network_and_crop_that_its_recipe_had_count(before, tmp_path):
    strides = ((1, 1, 1), (1, 2, 2))
    settings = NetworkSettings((4, 8), (1, 1), strides=strides, kernel_sizes=((1, 3, 3),) * 2)
    plan = read_cache(before / "cache").plan
    save(tmp_path / "last.pt", settings, plan, (4, 16, 16))
    shape = planned_shape(tmp_path / "last.pt")
    assert (shape.strides, shape.patch) == (strides, (4, 16, 16))
    assert shape.kernel_sizes == ((1, 3, 3),) * 2
    assert np.allclose(shape.spacing, 1)


def test_few_lost_weights_and_parts_not_asked_for_are_no_reason_to_warn(before):
    plan = read_cache(before / "cache").plan
    settings = NetworkSettings((4, 8, 8), (1, 1, 1), kernel_sizes=((1, 3, 3),) + ((3, 3, 3),) * 2)
    config = architectures.configure(settings, plan, plan["patch"], 1, 2)
    report = load_pretrained(architectures.build(config), before / "last.pt", ("encoder",))
    assert any(why.startswith("shape") for why in report.skipped.values())
    assert not [note for note in report.notes if "stay fresh" in note]


def test_pictures_are_not_prepared_like_volumes(before, tmp_path, capsys):
    for index in range(4):
        picture(tmp_path / f"set/{'ab'[index % 2]}/{index}.png", index, bright=index % 2 == 1)
    code = prepare.main(
        [str(tmp_path / "set"), str(tmp_path / "cache"), "--like", str(before / "cache")]
    )
    assert code == 2 and not (tmp_path / "cache").exists()
    assert f"{before / 'cache'} is of volumes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("spacing", (1, 1, 1)), ("stages", 3), ("patch_voxels", 9), ("picture_size", 64)],
)
def test_what_is_taken_from_elsewhere_cannot_be_chosen_too(before, scans, tmp_path, option, value):
    options = PrepareOptions(like=str(before / "cache"), **{option: value})
    with pytest.raises(InputError, match=rf"leave out --{option.replace('_', '-')}"):
        prepare_dataset(scans, tmp_path / "cache", options)


def test_a_file_that_is_no_checkpoint_is_refused_by_name(scans, tmp_path, capsys):
    (tmp_path / "weights.pth").write_bytes(b"other")
    code = prepare.main(
        [str(scans), str(tmp_path / "cache"), "--like", str(tmp_path / "weights.pth")]
    )
    assert code == 2 and "weights.pth" in capsys.readouterr().err
