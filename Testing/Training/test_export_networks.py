"""Every network that can be fine-tuned leaves as ONNX and TorchScript, and computes the same."""

import re
import shutil
import zipfile

import pytest
import torch

import export
from mim import architectures
from mim.agreement import ExportError, noise_tiles, verify_export
from mim.bundle import NETWORKS
from mim.checkpoint import save_checkpoint
from mim.classification import Classification
from mim.classifier_package import load_classifier
from mim.network_files import trained_network
from mim.onnx_export import export_onnx
from mim.segmentation import Segmentation
from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.runtime import open_session

RESENC = {"features": (4, 8, 8), "blocks": (1, 1, 1)}
VIT = {"patch": (8, 8), "width": 24, "depth": 2, "heads": 2, "qkv_bias": True}
SWIN = {"width": 12, "depths": (1, 1, 1, 1), "window": (4, 4, 4)}
# Architecture, settings, crop (z, y, x), channels, outputs; the smallest that the network takes.
NETWORKS_HERE = {
    "resenc_unet": (RESENC, (8, 12, 8), 2, 3),
    "resenc_unet-regions": (RESENC, (8, 12, 8), 1, 2),
    "unetr": ({"width": 24, "heads": 2, "features": 4}, (16, 32, 16), 1, 3),
    "swin_unetr": (SWIN, (64, 32, 32), 1, 3),
    "resenc_classifier": (RESENC, (8, 12, 8), 1, 2),
    "resenc_classifier-pictures": (RESENC, (1, 16, 16), 3, 4),
    "vit_classifier": ({**VIT, "patch": (4, 4, 4)}, (8, 12, 8), 1, 2),
    "vit_classifier-pictures": (VIT, (1, 16, 16), 1, 4),
}
SEVERAL = {"resenc_unet-regions", "vit_classifier-pictures"}  # each channel decides for itself


def plan(case, kind):
    _, patch, channels, outputs = NETWORKS_HERE[case]
    dims = 2 if patch[0] == 1 else 3
    stage = (2,) * dims
    names = [f"thing {n}" for n in range(outputs)]
    # Regions lie in each other and have no channel for what is outside of them.
    regions = [
        {"name": name, "labels": list(range(n + 1, outputs + 1)), "value": n + 1}
        for n, name in enumerate(names)
    ]
    labels = [{"value": region["value"], "name": region["name"]} for region in regions]
    regions_only = case.endswith("-regions")
    return {
        "name": "a data set",
        "inputs": [{"name": f"T{c}", "modality": "MR"} for c in range(channels)],
        "preprocessing": {
            "spacing": [1.0, 1.0, 1.0], "normalization": [{"scheme": "zscore"}] * channels,
        },
        "patch": list(patch),
        "dims": dims,
        "strides": [(1,) * dims, stage, stage],
        "kernel_sizes": [(3,) * dims] * 3,
        "labels": [] if kind == "classification" else labels if regions_only else labels[:-1],
        "regions": regions if regions_only else [],
        "classes": names if kind == "classification" else [],
        "multi_label": kind == "classification" and case in SEVERAL,
    }  # fmt: skip


def write_checkpoint(path, case):
    """A checkpoint as finetune.py leaves it, of weights that nobody trained."""
    name = case.split("-")[0]
    settings, patch, channels, outputs = NETWORKS_HERE[case]
    kind = "segmentation" if name in Segmentation.networks else "classification"
    planned = plan(case, kind)
    torch.manual_seed(0)
    chosen = architectures.ARCHITECTURES[name].settings(**settings)
    size = patch[3 - planned["dims"] :]
    config = architectures.configure(chosen, planned, size, channels, outputs)
    metadata = {
        "kind": kind, "network": config, "plan": planned, "fingerprint": {}, "step": 1,
        "recipe": {"cache": str(path.with_name("no cache"))}, "recipe_hash": "0",
    }  # fmt: skip
    config |= {"deep_supervision": True} if case.endswith("-regions") else {}
    network = architectures.build(config)
    if name.startswith("resenc"):  # whose residual branches begin as 0
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    content = {"metadata": metadata, "model": network.state_dict()}
    save_checkpoint(path, content)
    return content


@pytest.fixture(scope="module", params=NETWORKS_HERE)
def exported(request, tmp_path_factory):
    """Name, checkpoint and package of one network, and what export.py printed."""
    folder = tmp_path_factory.mktemp(request.param)
    content = write_checkpoint(folder / "last.pt", request.param)
    arguments = [str(folder / "last.pt"), str(folder / "package"), "--torchscript"]
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *text, **_: lines.append(" ".join(map(str, text))))
        assert export.main(arguments) == 0, lines
    return request.param, content, folder / "package", "\n".join(lines)


def test_every_network_of_fine_tuning_is_here():
    fine_tuned = {*Segmentation.networks, *Classification.networks}
    assert {case.split("-")[0] for case in NETWORKS_HERE} == fine_tuned == set(NETWORKS)
    assert fine_tuned | {"vit", "swin"} == set(architectures.ARCHITECTURES)


def test_both_files_compute_what_the_network_computes(exported):
    case, content, package, printed = exported
    network, several = trained_network(content), case in SEVERAL
    _, patch, channels, _ = NETWORKS_HERE[case]
    tiles = noise_tiles((channels, *(patch[1:] if patch[0] == 1 else patch)))
    for file in ("model.onnx", "model.ts"):
        found = verify_export(network, package / "models" / file, tiles, several)
        assert found.max_difference <= 1e-4 and found.label_agreement >= 0.9999
    differences = re.findall(r"(ONNX|TorchScript) against .* difference (\S+), same", printed)
    assert [name for name, _ in differences] == ["ONNX", "TorchScript"]
    assert all(float(value) <= 1e-4 for _, value in differences)


def test_packages_of_segmenters_are_for_the_module_and_those_of_classifiers_are_not(
    exported, tmp_path
):
    case, content, path, _ = exported
    if content["metadata"]["kind"] == "segmentation":
        package = load_package(path)
        assert package.spec.patch == NETWORKS_HERE[case][1]
        assert package.spec.head == ("regions" if case in SEVERAL else "softmax")
        assert "models/model.ts" in package.checksums
        with pytest.raises(PackageError, match="no classifier"):
            load_classifier(path)
        return
    package = load_classifier(path)
    assert package.spec.classes == tuple(content["metadata"]["plan"]["classes"])
    with pytest.raises(PackageError, match=r"classification, .* segments nothing"):
        load_package(path)
    spoiled = shutil.copytree(path, tmp_path / "spoiled")
    (spoiled / "models" / "model.ts").write_bytes(b"something else")
    with pytest.raises(PackageError, match=r"model\.ts does not match its checksum"):
        load_classifier(spoiled)


def test_files_say_nothing_about_the_computer_they_were_made_on(exported):
    _, _, package, _ = exported
    assert b".py" not in (package / "models" / "model.onnx").read_bytes()
    with zipfile.ZipFile(package / "models" / "model.ts") as archive:
        parts = [archive.read(name) for name in archive.namelist()]
    assert not any(b"site-packages" in part or b"/training/" in part for part in parts)


@pytest.mark.parametrize("several", [False, True])
def test_an_export_that_decides_otherwise_is_refused(tmp_path, several):
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 1)
    tiles = noise_tiles((1, 4, 4, 4))
    torch.jit.trace(network, torch.zeros(1, 1, 4, 4, 4)).save(str(tmp_path / "model.ts"))
    assert verify_export(network, tmp_path / "model.ts", tiles, several).label_agreement == 1
    with torch.no_grad():
        network.bias += 1e-3
    with pytest.raises(ExportError, match=r"differs from the network by 0\.001"):
        verify_export(network, tmp_path / "model.ts", tiles, several)
    with torch.no_grad():
        network.bias += torch.nan
    with pytest.raises(ExportError, match="differs"):
        verify_export(network, tmp_path / "model.ts", tiles, several)


def test_rounding_of_large_tiles_is_no_difference(tmp_path):
    torch.manual_seed(0)
    shape = (96, 160, 128)
    norm = torch.nn.InstanceNorm3d(1, affine=True)
    network = torch.nn.Sequential(norm, torch.nn.Conv3d(1, 2, 1))
    torch.nn.init.constant_(network[1].weight[:1], 3.0)
    export_onnx(network, 1, shape, (1, 1, 1), tmp_path / "model.onnx")
    tile = torch.randn(1, 1, *shape).numpy()
    assert verify_export(network, tmp_path / "model.onnx", [tile]).max_difference < 1e-3
    with torch.no_grad():
        norm.weight += 1e-3
    with pytest.raises(ExportError, match="differs"):
        verify_export(network, tmp_path / "model.onnx", [tile])


def test_a_trusted_session_runs_the_file(exported):
    case, _, package, _ = exported
    _, patch, channels, outputs = NETWORKS_HERE[case]
    size = patch[1:] if patch[0] == 1 else patch
    session = open_session(package / "models" / "model.ts", "cpu", trusted=True)
    assert session(noise_tiles((channels, *size))[1]).shape[:2] == (2, outputs)
