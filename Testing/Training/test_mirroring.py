"""Mirroring at inference: the axes of training, in the package, as the engine understands them."""

import numpy as np
import pytest
import torch

import export
from cache_fixture import write_cache
from mim.augment import SpatialSettings, augment_spatial
from mim.checkpoint import save_checkpoint
from mim.data import UnlabeledVolumes, draw_crops, read_cache
from mim.device import Generators
from mim.network_files import trained_network
from MIMSegment.Logic.engine import predict_planes, segment
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.runtime import OnnxSession
from MIMSegment.Logic.spec import ModelSpec, Normalization, Preprocessing
from MIMSegment.Logic.volume import Geometry, Volume
from test_export_networks import write_checkpoint


def trained(path, case, *flip):
    """A checkpoint of an untrained network, as of a training that mirrored along (z, y, x)."""
    content = write_checkpoint(path, case)
    content["metadata"]["recipe"]["spatial"] = {"flip": list(flip)}
    save_checkpoint(path, content)
    return content


@pytest.mark.parametrize("axis", range(3))
def test_the_engine_mirrors_along_the_axis_that_training_mirrors(tmp_path, axis):
    cache = read_cache(write_cache(tmp_path / "cache", subjects=3))
    volumes = UnlabeledVolumes(cache, cache.train[:1])
    image = volumes.images[0].float().numpy()
    crops = draw_crops(volumes, image.shape[1:], 8, torch.Generator().manual_seed(0))
    settings = SpatialSettings(flip=tuple(n == axis for n in range(3)), affine=0)
    learnt = augment_spatial(crops, settings, (1, 1, 1), Generators.seeded(0)).images.numpy()
    seen = []

    def look(tile):
        seen.append(tile[0].copy())
        return np.concatenate([tile, -tile], axis=1)

    preprocessing = Preprocessing((None,) * 3, (Normalization("none"),))
    spec = ModelSpec((InputSpec("T1", "MR"),), preprocessing, image.shape[1:], (0, 1))
    list(predict_planes(image, ModelSpec(**{**vars(spec), "mirror_axes": (axis,)}), [look]))
    assert len(seen) == 2 and not np.array_equal(*seen)
    assert {crop.tobytes() for crop in learnt} == {tile.tobytes() for tile in seen}


def test_a_mirrored_package_says_the_mean_over_all_mirrorings(tmp_path):
    content = trained(tmp_path / "last.pt", "resenc_unet", False, True, True)
    assert export.main([str(tmp_path / "last.pt"), str(tmp_path / "package"), "--mirror"]) == 0
    package = load_package(tmp_path / "package")
    assert package.spec.mirror_axes == (1, 2)
    network, shape = trained_network(content).eval(), package.spec.patch
    noise = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    image = Volume(noise, Geometry.from_parts(shape, (1, 1, 1)))
    tile = torch.from_numpy((noise - noise.mean((1, 2, 3), keepdims=True))[None])
    tile /= tile.std((2, 3, 4), correction=0, keepdim=True)
    subsets = [(), (3,), (4,), (3, 4)]
    with torch.inference_mode():
        each = [network(tile.flip(subset)).flip(subset) for subset in subsets]
    expected = torch.stack(each).mean(0).argmax(1)[0].numpy()
    found = segment(image, package.spec, OnnxSession(package.model_paths[0])).labels
    assert (found == expected).mean() > 0.999
    assert (found != each[0].argmax(1)[0].numpy()).mean() > 0.01
    card = (tmp_path / "package/docs/README.md").read_text()
    assert "Mirroring: along y, x; 4 predictions of each window" in card


@pytest.mark.slow
def test_networks_of_one_package_are_mirrored_where_all_of_them_were(tmp_path):
    trained(tmp_path / "a.pt", "resenc_unet", True, True, False)
    trained(tmp_path / "b.pt", "resenc_unet", False, True, True)
    paths = [str(tmp_path / name) for name in ("a.pt", "b.pt", "package")]
    assert export.main([*paths, "--mirror"]) == 0
    assert load_package(tmp_path / "package").spec.mirror_axes == (1,)


def test_a_network_that_saw_no_mirrored_image_is_refused(tmp_path, capsys):
    trained(tmp_path / "last.pt", "resenc_unet", False, False, False)
    assert export.main([str(tmp_path / "last.pt"), str(tmp_path / "package"), "--mirror"]) == 2
    error = capsys.readouterr().err
    assert "last.pt" in error and "spatial.flip" in error and "leave out --mirror" in error
    assert not (tmp_path / "package").exists()


def test_a_classifier_is_refused(tmp_path, capsys):
    trained(tmp_path / "last.pt", "resenc_classifier", True, True, True)
    assert export.main([str(tmp_path / "last.pt"), str(tmp_path / "package"), "--mirror"]) == 2
    assert "--mirror is for segmentation" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["--to-nnssl", "--from-nnunet"])
def test_other_forms_of_export_are_refused(form):
    with pytest.raises(SystemExit):
        export.main([form, "something", "package", "--mirror"])
