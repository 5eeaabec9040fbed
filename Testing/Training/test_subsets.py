"""Which subjects a run with few labels learns from, and how large its crops are in the patient."""

from types import SimpleNamespace

import pytest
import torch

import finetune
import pretrain
from mim import segmentation
from mim.caching import PrepareOptions, prepare_dataset
from mim.data import Crops, read_cache
from mim.subsets import stratified
from MIMSegment.Logic.volume import Volume
from small_sets import decathlon, put, scan

CLASSES = {f"s{i:03d}": "rare" if i % 10 == 0 else "common" for i in range(200)}


def test_smaller_subsets_are_parts_of_larger_ones_and_follow_the_seed_alone():
    order = stratified(CLASSES, 3)
    assert sorted(order) == sorted(CLASSES)
    shuffled = dict(sorted(CLASSES.items(), key=lambda item: hash(item[0])))
    assert stratified(shuffled, 3) == order
    assert stratified(CLASSES, 4)[:20] != order[:20]


@pytest.mark.parametrize("count", [10, 20, 30, 70, 150])
def test_every_subset_has_the_classes_in_proportion(count):
    rare = sum(CLASSES[name] == "rare" for name in stratified(CLASSES, 0)[:count])
    assert abs(rare - count / 10) <= 1


def test_classes_of_one_subject_are_in_small_subsets_too():
    names = {f"s{i:02d}": i if i < 30 else "common" for i in range(60)}
    counts = [sum(name < "s30" for name in stratified(names, seed)[:10]) for seed in range(20)]
    assert 4 < sum(counts) / 20 < 6 and 0 not in counts


def test_subjects_without_classes_are_in_any_order():
    names = dict.fromkeys("abcdefgh")
    assert stratified(names, 0) != sorted(names)
    assert len({tuple(stratified(names, seed)) for seed in range(20)}) > 10


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """The same scans at two voxel sizes."""
    root = tmp_path_factory.mktemp("caches")
    decathlon(root / "data", count=5)
    for name, spacing in (("coarse", (3.0, 2.0, 2.0)), ("fine", (3.0, 1.0, 1.0))):
        options = PrepareOptions(spacing=spacing, patch_voxels=2000, stages=2, jobs=1)
        prepare_dataset(root / "data", root / name, options)
    return root


def test_commands_say_how_much_of_the_patient_a_crop_is(caches, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("")
    common = ["patch=8,8,8", "network.features=4,8", "network.blocks=1,1", "loop.steps=1"]
    said = {}
    for name in ("coarse", "fine"):
        run = [f"cache={caches / name}", f"run={tmp_path / name}", *common]
        assert pretrain.main([str(recipe), *run]) == 0
        said[name] = capsys.readouterr().out
    assert "8 x 8 x 8 voxels (24 x 16 x 16 mm)" in said["coarse"]
    assert "8 x 8 x 8 voxels (24 x 8 x 8 mm)" in said["fine"]

    start = f"pretrained={tmp_path / 'coarse/last.pt'}"
    fine = [f"cache={caches / 'fine'}", f"run={tmp_path / 'task'}", "subjects=2", *common]
    assert finetune.main([str(recipe), *fine, start]) == 0
    printed = capsys.readouterr().out
    assert "Fine-tuning on 2 subjects, crops of 8 x 8 x 8 voxels (24 x 8 x 8 mm)" in printed
    assert "WARNING: pre-trained on voxels of 3 x 2 x 2 mm, used on voxels of 3 x 1 x 1" in printed
    assert read_cache(caches / "fine").plan["preprocessing"]["spacing"] == [3.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    """Twelve training subjects, of whom every other one has a lesion (label 4)."""
    root = tmp_path_factory.mktemp("lesions")
    decathlon(root / "data", count=12)
    for index in range(0, 12, 2):
        label = scan(index)[1]
        gland = label.array * (label.array == 1)
        put(root / f"data/labelsTr/case_{index}.nii.gz", Volume(gland, label.geometry))
    options = PrepareOptions(patch_voxels=2000, stages=2, jobs=1, held_back=0)
    prepare_dataset(root / "data", root / "cache", options)
    return root


class Opened(Exception):
    """Stops a run when it opens its images."""


@pytest.mark.parametrize("seed", range(3))
def test_the_command_takes_nested_subsets_with_lesions_in_proportion(lesions, monkeypatch, seed):
    def opened(cache, subjects, device, limit_gib):
        raise Opened(subjects, limit_gib)

    monkeypatch.setattr(segmentation, "LabeledVolumes", opened)
    recipe = lesions / "recipe.toml"
    recipe.write_text("memory_gib = 0.5\n")
    common = [f"cache={lesions / 'cache'}", "network.features=4,8", "network.blocks=1,1"]
    subsets = []
    for count in (4, 8):
        run = [f"run={lesions / f'{seed}_{count}'}", f"seed={seed}", f"subjects={count}"]
        with pytest.raises(Opened) as found:
            finetune.main([str(recipe), *common, *run])
        subjects, limit = found.value.args
        assert len(subjects) == count and limit == 0.5
        assert sum(int(name.split("_")[1]) % 2 for name in subjects) == count / 2
        subsets.append(set(subjects))
    assert subsets[0] < subsets[1]


def test_crops_of_images_that_stay_on_the_disk_go_to_the_device(monkeypatch):
    crops = Crops(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2) > 0, ("a",))
    task = SimpleNamespace(draw=lambda batch, generator: crops)
    cache = SimpleNamespace(plan={"preprocessing": {"spacing": (1, 1, 1)}})
    recipe = SimpleNamespace(loop=SimpleNamespace(micro_batch=1), spatial=None, intensity=None)
    generators = SimpleNamespace(host=None, device=SimpleNamespace(device="meta"))
    for name in ("augment_spatial", "augment_intensity"):
        monkeypatch.setattr(finetune, name, lambda crops, *_: crops)
    assert finetune.draw(task, cache, recipe, generators).images.device.type == "meta"
