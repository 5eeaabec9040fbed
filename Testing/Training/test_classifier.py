"""Classification of lesions: the network, and the phantom set it is tried on."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from mim import architectures
from mim.checkpoint import save_checkpoint
from mim.classifier import ClassifierSettings
from mim.networks import NetworkConfig, build_network
from mim.phantom import make_phantom
from mim.phantom_lesions import lesions_of, main, write_lesion_set
from mim.recipe import RecipeError
from mim.transfer import load_pretrained
from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.volume import read_volume

SETTINGS = ClassifierSettings(features=(4, 8, 8), blocks=(1, 2, 1))
PLANS = {
    3: {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "kernel_sizes": [[1, 3, 3]] + [[3] * 3] * 2},
    2: {"strides": [[1, 1], [2, 2], [2, 2]], "kernel_sizes": [[3, 3]] * 3},
}


def classifier(dims=3, channels=1, classes=2):
    config = architectures.configure(SETTINGS, PLANS[dims], (), channels, classes)
    return architectures.build(config), config


@pytest.mark.parametrize("dims", [2, 3])
def test_classifier_gives_a_logit_for_each_class(dims):
    network, config = classifier(dims, channels=2, classes=3)
    assert config["name"] == "resenc_classifier"
    assert network(torch.randn(2, 2, *(16,) * dims)).shape == (2, 3)


@pytest.mark.parametrize(
    "pooling, width", [("mean", 8), ("max", 8), ("mean_max", 16), ("center", 32)]
)
def test_pooling_is_chosen_and_decides_the_width_of_the_linear_layer(pooling, width):
    settings = replace(SETTINGS, pooling=pooling)
    network = architectures.build(architectures.configure(settings, PLANS[3], (), 1, 2))
    image = torch.randn(2, 1, 16, 16, 16)
    whole = network.encoder(image)[-1]
    assert whole.shape[2:] == (8, 4, 4)
    middle = whole[:, :, 2:5, 1:3, 1:3].flatten(2)  # a third, rounded up
    features = whole.flatten(2)
    known = {"mean": features.mean(2), "max": features.amax(2)}
    known["mean_max"] = torch.cat((known["mean"], known["max"]), 1)
    known["center"] = torch.cat((known["mean_max"], middle.mean(2), middle.amax(2)), 1)
    assert torch.equal(network.embed(image), known[pooling]) and known[pooling].shape[1] == width
    assert network.head.in_features == width


def test_pretrained_unet_fills_its_encoder(tmp_path):
    target, config = classifier()
    sizes = {k: v for k, v in config.items() if k not in ("name", "dropout", "pooling")}
    unet = build_network(NetworkConfig.from_dict(sizes))
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.normal_()
    save_checkpoint(tmp_path / "last.pt", {"metadata": {}, "model": unet.state_dict()})
    report = load_pretrained(target, tmp_path / "last.pt", parts=("encoder",))
    assert report.shares == {"encoder": 1.0}
    assert set(report.missing) == {"head.weight", "head.bias"}
    image = torch.randn(1, 1, 8, 16, 16)
    with torch.no_grad():
        assert torch.equal(target.encoder(image)[-1], unet.encoder(image)[-1])


def test_impossible_classifiers_and_patches_are_refused():
    with pytest.raises(RecipeError, match="one entry for each stage"):
        ClassifierSettings(features=(4, 8), blocks=(1,))
    with pytest.raises(RecipeError, match=r"\(2, 4, 4\)"):
        classifier()[0].check_patch((7, 16, 16))


def test_it_learns_to_tell_two_textures_apart():
    torch.manual_seed(0)
    network, _ = classifier()
    smooth = torch.nn.functional.avg_pool3d(torch.randn(8, 1, 8, 16, 16), 3, 1, 1)
    images = torch.cat((smooth / smooth.std(), torch.randn(8, 1, 8, 16, 16)))
    classes = torch.arange(16) // 8
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(network(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network(images).argmax(1) == classes).all()


def with_dark_spots(count=16):
    """Noise with a dark spot of a few voxels in the second half, and which is which."""
    images = torch.randn(count, 1, 8, 16, 16)
    images[count // 2 :, :, 3:5, 6:10, 6:10] -= 2.0
    return images, torch.arange(count) * 2 // count


def test_a_dark_spot_of_a_few_voxels_is_seen_in_spite_of_instance_normalization():
    torch.manual_seed(0)
    network, _ = classifier()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        images, classes = with_dark_spots()
        loss = torch.nn.functional.cross_entropy(network(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, classes = with_dark_spots(64)
    with torch.no_grad():
        assert (network(images).argmax(1) == classes).float().mean() > 0.9


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesions") / "set"
    return write_lesion_set(folder, patients=4, held_out=2, sequences=("T2w", "ADC"))


def test_lesion_set_is_a_table_that_keeps_patients_together(lesions):
    rows = list(csv.DictReader(lesions.open()))
    assert {row["class"] for row in rows} == {"benign", "malignant"}
    splits = {}
    for row in rows:
        splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(split) == 1 for split in splits.values())
    for row in rows:
        t2w, adc = (read_volume(lesions.parent / row[f"image_{n}"]) for n in ("T2w", "ADC"))
        assert t2w.geometry.is_close(adc.geometry)
        extent = np.multiply(t2w.geometry.shape, t2w.geometry.spacing)
        assert np.allclose(extent, (36, 44, 44), atol=4)


def test_classes_differ_in_the_truth_that_draws_them():
    found = [lesion for seed in range(12) for lesion in make_prostate_truth(seed)]
    adc = {
        kind: [x["adc"] for x in found if x["class"] == kind] for kind in ("benign", "malignant")
    }
    assert max(adc["malignant"]) < 880 < np.mean(adc["benign"])


def make_prostate_truth(seed):
    return make_phantom("prostate", seed, (8, 48, 48), benign=0.5).lesions


def test_phantoms_without_the_option_have_malignant_lesions_only():
    plain = make_phantom("prostate", 0, (8, 48, 48)).lesions
    assert {lesion["class"] for lesion in plain} == {"malignant"}


def test_crops_are_centered_on_the_lesion():
    phantom = make_phantom("prostate", 0, benign=0.5)
    crops = [crop["T2w"] for _, crop in lesions_of(0)]
    for lesion, crop in zip(phantom.lesions, crops, strict=True):
        index = np.linalg.inv(crop.geometry.ijk_to_lps) @ [*lesion["center_lps"], 1]
        middle = (np.array(crop.geometry.shape[::-1]) - 1) / 2
        assert (np.abs(index[:3] - middle) <= 1.5).all()


def test_existing_set_and_unknown_sequence_are_refused(lesions, tmp_path, capsys):
    with pytest.raises(OutputError, match="exists already"):
        write_lesion_set(lesions.parent, 1)
    with pytest.raises(InputError, match="T1w"):
        write_lesion_set(tmp_path / "new", 1, sequences=("T1w",))
    assert main(["-o", str(lesions.parent), "-n", "1"]) == 1
    assert "exists already" in capsys.readouterr().err
