"""Reading a cache and drawing crops: the right voxels, from the right subjects, without labels."""

import json
import shutil

import numpy as np
import pytest
import torch

from cache_fixture import write_cache
from mim.data import (
    PAD_VALUE,
    LabeledVolumes,
    UnlabeledVolumes,
    draw_crops,
    draw_labeled_crops,
    read_cache,
)
from MIMSegment.Logic.errors import InputError


@pytest.fixture
def cache(tmp_path):
    return read_cache(write_cache(tmp_path / "cache", channels=2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def edit(path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_pretraining_data_have_no_label_and_need_none(cache):
    shutil.rmtree(cache.folder / "labels")
    volumes = UnlabeledVolumes(cache, cache.train)
    crops = draw_crops(volumes, (8, 8, 8), 2, generator())
    for thing in (volumes, crops):
        assert not [name for name in dir(thing) if "label" in name.lower()]


def test_volumes_hold_the_asked_subjects_only(cache):
    assert UnlabeledVolumes(cache, cache.train).ids == ("case_2", "case_3", "case_4", "case_5")
    assert UnlabeledVolumes(cache, ["subject_1"]).ids == ("case_1",)


def test_cases_without_label_are_no_labelled_volumes(cache):
    edit(cache.folder / "cases.json", lambda values: values["cases"][2].update(label=None))
    volumes = LabeledVolumes(read_cache(cache.folder), cache.train)
    assert volumes.ids == ("case_3", "case_4", "case_5")


def find(source: np.ndarray, crop: np.ndarray) -> bool:
    """Whether ``crop`` occurs in ``source`` at some place."""
    windows = np.lib.stride_tricks.sliding_window_view(source, crop.shape)
    return bool((windows == crop).all((-1, -2, -3)).any())


def test_crops_are_exact_pieces_of_their_case(cache):
    volumes = UnlabeledVolumes(cache, cache.train)
    crops = draw_crops(volumes, (6, 9, 5), 8, generator())
    assert crops.images.shape == (8, 2, 6, 9, 5) and crops.images.dtype == torch.float32
    assert crops.valid.all()
    for image, case in zip(crops.images.numpy(), crops.cases, strict=True):
        source = np.load(cache.folder / "images" / f"{case}.npy").astype(np.float32)
        assert all(find(source[c], image[c]) for c in range(2))


def test_volume_smaller_than_the_patch_is_padded_and_marked(cache):
    volumes = UnlabeledVolumes(cache, cache.train)
    crops = draw_crops(volumes, (8, 40, 40), 6, generator())
    for image, valid, case in zip(crops.images, crops.valid, crops.cases, strict=True):
        source = volumes.images[volumes.ids.index(case)].float()
        inside = image[:, valid[0]].view(2, 8, *source.shape[2:])
        assert find(source[0].numpy(), inside[0].numpy())
        assert (image[:, ~valid[0]] == PAD_VALUE).all()


def test_every_place_is_drawn_the_borders_included(cache):
    volumes = UnlabeledVolumes(cache, ["subject_2"])
    size = volumes.images[0].shape[1]
    volumes.images[0] = torch.arange(size).view(1, -1, 1, 1).expand(2, size, 9, 9).half()
    crops = draw_crops(volumes, (size - 2, 9, 9), 300, generator())
    starts = crops.images[:, 0, 0, 0, 0].long().bincount()
    assert len(starts) == 3 and starts.min() > 70


def test_same_generator_state_draws_the_same_crops(cache):
    volumes = LabeledVolumes(cache, cache.train)
    first, again, other = (
        draw_labeled_crops(volumes, (8, 8, 8), 4, generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)


def test_mapped_and_resident_volumes_give_the_same_crops(cache):
    drawn = [
        draw_crops(UnlabeledVolumes(cache, cache.train, limit_gib=gib), (8, 8, 8), 4, generator())
        for gib in (0, 1)
    ]
    assert torch.equal(drawn[0].images, drawn[1].images)


def test_labels_stay_with_their_image(cache):
    volumes = LabeledVolumes(cache, cache.train)
    for i, label in enumerate(volumes.labels):
        volumes.images[i] = torch.stack((label, label)).half()
    crops = draw_labeled_crops(volumes, (12, 30, 8), 6, generator())
    assert crops.labels.shape == (6, 1, 12, 30, 8) and crops.labels.dtype == torch.int64
    assert torch.equal(crops.images[:, :1].long(), crops.labels)
    assert crops.labels.any()


def test_oversampled_crops_are_centered_on_a_class_each_as_often(cache):
    volumes = LabeledVolumes(cache, cache.train)
    for label in volumes.labels:  # one voxel of class 2, far rarer than class 1
        label.zero_()[6:9, 6:10, 6:9] = 1
        label[7, 7, 7] = 2
    volumes.locations = [
        {value: (label == value).nonzero().numpy() for value in (1, 2)} for label in volumes.labels
    ]
    crops = draw_labeled_crops(volumes, (3, 3, 3), 300, generator(), foreground=1.0)
    centers = crops.labels[:, 0, 1, 1, 1].bincount(minlength=3).tolist()
    assert centers[0] == 0 and abs(centers[2] - 150) < 30
    crops = draw_labeled_crops(volumes, (3, 3, 3), 300, generator(), foreground=0.0)
    assert (crops.labels[:, 0, 1, 1, 1] == 0).sum() > 270


def test_locations_are_voxels_of_their_class(cache):
    volumes = LabeledVolumes(cache, cache.train)
    for label, locations in zip(volumes.labels, volumes.locations, strict=True):
        assert set(locations) == set(label.unique().tolist()) - {0}
        for value, voxels in locations.items():
            assert (label.numpy()[tuple(voxels.T)] == value).all()


@pytest.mark.parametrize("name", ["cases.json", "split.json", "plan.json", "fingerprint.json"])
def test_folder_that_is_no_cache_is_refused_by_the_missing_file(cache, name):
    (cache.folder / name).unlink()
    with pytest.raises(InputError, match=f"no {name}"):
        read_cache(cache.folder)


def test_subject_on_both_sides_of_the_split_is_refused(cache):
    edit(cache.folder / "split.json", lambda split: split["train"].append("subject_0"))
    with pytest.raises(InputError, match="subject_0 in training and held back"):
        read_cache(cache.folder)


def test_other_version_is_refused(cache):
    edit(cache.folder / "cases.json", lambda values: values.update(version=99))
    with pytest.raises(InputError, match="version 99"):
        read_cache(cache.folder)


def test_missing_cut_or_exchanged_image_is_refused_by_name(cache):
    path = cache.folder / "images" / "case_3.npy"
    np.save(path, np.zeros((2, 3, 3, 3), np.float16))
    with pytest.raises(InputError, match=r"case_3\.npy has shape"):
        UnlabeledVolumes(cache, cache.train)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"case_3\.npy cannot be read"):
        UnlabeledVolumes(cache, cache.train)
    path.unlink()
    with pytest.raises(InputError, match=r"case_3\.npy cannot be read"):
        UnlabeledVolumes(cache, cache.train)


def test_unknown_subject_is_refused(cache):
    with pytest.raises(InputError, match="nobody"):
        UnlabeledVolumes(cache, ["subject_2", "nobody"])
