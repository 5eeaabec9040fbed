"""Models of nnU-Net v2 become packages that compute the same; what cannot is refused by name."""

import json
import zipfile
from copy import deepcopy

import numpy as np
import pytest
import torch

import export
from mim.exporting import ExportOptions
from mim.nnunet_import import export_nnunet, read_model
from mim.nnunet_plans import NnunetError
from mim.nnunet_weights import load_checkpoint
from MIMSegment.Logic.engine import segment
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.runtime import OnnxSession
from MIMSegment.Logic.spec import Normalization
from MIMSegment.Logic.volume import Geometry, Volume
from nnunet_fixture import architecture, configuration, dataset, network, plans, write_model

BRATS = {
    "background": 0,
    "whole tumor": [1, 2, 3],
    "tumor core": [2, 3],
    "enhancing tumor": [3],
}


@pytest.fixture
def tables():
    return plans(**{"3d_fullres": configuration()}), dataset()


def model_of(folder, tables, **networks):
    return write_model(folder, *tables, networks or {"0": network()})


def image(channels=1, shape=(9, 40, 36), spacing=(3.0, 1.2, 1.0)) -> Volume:
    array = np.random.default_rng(0).normal(100, 30, (channels, *shape)).astype(np.float32)
    array[:, :2] = 0
    return Volume(array, Geometry.from_parts(shape, spacing))


def torch_labels(volume, spec, networks):
    def predictor(net):
        def predict(tile):
            with torch.inference_mode():
                return net(torch.from_numpy(tile)).numpy()

        return predict

    return segment(volume, spec, [predictor(net) for net in networks]).labels


def package_labels(volume, package):
    sessions = [OnnxSession(path) for path in package.model_paths]
    return segment(volume, package.spec, sessions).labels


def test_a_3d_model_becomes_a_package_with_the_same_labels(tmp_path, tables, capsys):
    net = network()
    model = write_model(tmp_path / "model", *tables, {"0": net})
    found_better = model / "crossval_results_folds_0/postprocessing.json"
    found_better.parent.mkdir()
    found_better.write_text("{}")
    assert export.main(["--from-nnunet", str(model), str(tmp_path / "package")]) == 0
    assert f"it would be with --postprocessing {found_better}" in capsys.readouterr().out
    package = load_package(tmp_path / "package")
    assert package.spec.keep_largest_component == ()
    spec = package.spec
    assert spec.patch == (4, 16, 16) and spec.overlap == 0.5 and spec.mirror_axes == (0, 1, 2)
    assert spec.preprocessing.crop_to_nonzero and spec.preprocessing.orientation is None
    assert [label.name for label in package.labels] == ["gland", "lesion"]
    assert "Nature Methods" in (package.path / "docs/README.md").read_text()
    expected, found = torch_labels(image(), spec, [net]), package_labels(image(), package)
    assert len(np.unique(expected)) > 1
    assert (expected == found).mean() > 0.9999


@pytest.mark.slow
def test_a_2d_ensemble_keeps_slices_apart_and_averages_logits(tmp_path):
    networks = {fold: network(2, name="ResidualEncoderUNet") for fold in ("0", "1")}
    with torch.no_grad():
        networks["1"].decoder.seg_layers[-1].bias += torch.tensor([5.0, 0.0, 0.0])
    table = plans(**{"2d": configuration(2, name="ResidualEncoderUNet")})
    model = write_model(tmp_path / "model", table, dataset(), networks, "2d", mirror_axes=(0, 1))
    export_nnunet(model, tmp_path / "package", ExportOptions())
    package = load_package(tmp_path / "package")
    spec = package.spec
    assert spec.models == ("models/fold_0.onnx", "models/fold_1.onnx")
    assert spec.dims == 2 and spec.patch == (1, 16, 16) and spec.mirror_axes == (1, 2)
    assert spec.preprocessing.spacing == (None, 1.0, 1.0)
    expected = torch_labels(image(), spec, networks.values())
    assert (package_labels(image(), package) == expected).mean() > 0.9999
    assert (torch_labels(image(), spec, [networks["0"]]) != expected).any()


def test_regions_keep_their_order_and_say_what_they_leave_out(tmp_path):
    channels = ("T1", "T1c", "T2", "FLAIR")
    table = plans(**{"3d_fullres": configuration(channels=4)})
    labels = dataset(channels, BRATS, regions_class_order=[1, 2, 3])
    model = write_model(tmp_path / "model", table, labels, {"0": network(channels=4)})
    found = read_model(model)
    assert found.spec.head == "regions" and found.spec.channel_labels == (1, 2, 3)
    assert [item.name for item in found.spec.inputs] == list(channels)
    assert [label.name for label in found.head.labels] == [
        "whole tumor outside tumor core",
        "tumor core outside enhancing tumor",
        "enhancing tumor",
    ]


def test_preprocessing_is_taken_over_field_by_field(tmp_path, tables):
    table, _ = tables
    wanted = table["configurations"]["3d_fullres"]
    wanted["normalization_schemes"] = ["CTNormalization", "ZScoreNormalization"]
    wanted["use_mask_for_norm"] = [False, True]
    table["image_reader_writer"] = "NibabelIOWithReorient"
    table["transpose_forward"] = [2, 0, 1]
    model = write_model(tmp_path, table, dataset(("CT", "PET")), {"0": network(channels=2)})
    spec = read_model(model).spec
    assert spec.preprocessing.normalization == (
        Normalization("ct", mean=50.0, std=20.0, lower=-100.0, upper=300.0),
        Normalization("zscore", nonzero=True),
    )
    assert [item.modality for item in spec.inputs] == ["CT", "PT"]
    assert spec.preprocessing.orientation == "RAS"
    assert spec.preprocessing.transpose == (2, 0, 1)
    assert spec.preprocessing.spacing == (3.0, 1.0, 1.0)


def test_the_older_layout_of_plans_gives_the_same_network(tmp_path, tables):
    table, labels = tables
    old = deepcopy(table)
    options = old["configurations"]["3d_fullres"].pop("architecture")["arch_kwargs"]
    old["configurations"]["3d_fullres"] |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 16,
        "n_conv_per_stage_encoder": [2, 2, 1],
        "n_conv_per_stage_decoder": [1, 2],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": options["strides"],
        "conv_kernel_sizes": options["kernel_sizes"],
    }
    old["foreground_intensity_properties_by_modality"] = old.pop(
        "foreground_intensity_properties_per_channel"
    )
    labels["modality"] = labels.pop("channel_names")
    found = read_model(write_model(tmp_path, old, labels, {"0": network()})).architecture
    assert found.features == (4, 8, 16) and found.decoder == (1, 2)
    assert found.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2))


def test_configurations_inherit_and_folds_can_be_chosen(tmp_path, tables):
    table, labels = tables
    table["configurations"]["bigger"] = {"inherits_from": "3d_fullres", "patch_size": [4, 32, 32]}
    folds = {"0": network(), "3": network(), "all": network()}
    model = write_model(tmp_path, table, labels, folds, "bigger")
    assert read_model(model).spec.patch == (4, 32, 32)
    assert read_model(model).spec.provenance["folds"] == ["0", "3"]
    assert read_model(model, ["all"]).spec.models == ("models/model.onnx",)
    with pytest.raises(NnunetError, match="fold_1"):
        read_model(model, ["1"])
    with pytest.raises(NnunetError, match="checkpoint_best"):
        read_model(model, checkpoint="checkpoint_best.pth")


def test_wrapped_weights_are_read(tmp_path, tables):
    model = model_of(tmp_path, tables)
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"] = {
        f"module._orig_mod.{k}": v for k, v in content["network_weights"].items()
    }
    torch.save(content, path)
    assert set(load_checkpoint(path).weights) == set(network().state_dict())


def test_checkpoints_written_with_numpy_1_are_read(tmp_path, tables):
    path = model_of(tmp_path, tables) / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in content if name.endswith("data.pkl"))
    assert b"numpy._core.multiarray" in content[pickled]
    content[pickled] = content[pickled].replace(b"numpy._core.", b"numpy.core.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert load_checkpoint(path).trainer == "nnUNetTrainer"


def test_code_in_a_checkpoint_is_not_run(tmp_path, tables):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    model = write_model(tmp_path / "model", *tables, {"0": network()}, logging=Trap())
    with pytest.raises(NnunetError, match="could run code"):
        read_model(model)
    assert not (tmp_path / "ran").exists()


def change(key, value):
    def apply(table, labels):
        table["configurations"]["3d_fullres"][key] = value

    return apply


def change_plans(key, value):
    return lambda table, labels: table.__setitem__(key, value)


def change_labels(**values):
    return lambda table, labels: labels.update(values)


def change_network(key, value):
    description = architecture()
    description["arch_kwargs"][key] = value
    return change("architecture", description)


PRIMUS = {"network_class_name": "dynamic_network_architectures.architectures.primus.Primus",
          "arch_kwargs": {}}  # fmt: skip


@pytest.mark.parametrize(
    ("alteration", "message"),
    [
        (change("previous_stage", "3d_lowres"), "cascade"),
        (change("architecture", PRIMUS), "Primus"),
        (change_network("norm_op", "torch.nn.BatchNorm3d"), "BatchNorm3d"),
        (change_network("nonlin", "torch.nn.ReLU"), "ReLU"),
        (change_network("strides", [[1, 1, 1]]), "incomplete"),
        (change("architecture", {}), "incomplete"),
        (change("patch_size", [16]), "patch_size"),
        (change("patch_size", None), "patch_size"),
        (change("normalization_schemes", ["MyNormalization"]), "MyNormalization"),
        (change("resampling_fn_data", "resample_torch_fornnunet"), "resample_torch_fornnunet"),
        (change("preprocessor_name", "MyPreprocessor"), "MyPreprocessor"),
        (change("normalization_schemes", ["NoNormalization"] * 2), "do not belong together"),
        (change_plans("image_reader_writer", "NaturalImage2DIO"), "NaturalImage2DIO"),
        (change_plans("label_manager", "MyLabels"), "MyLabels"),
        (change_plans("configurations", {"2d": {}}), "no usable configuration '3d_fullres'"),
        (change_labels(labels={"background": 0, "gland": 5}), "consecutive"),
        (change_labels(labels=BRATS), "regions_class_order"),
        (change_labels(channel_names={}), "input channels"),
        (change_labels(channel_names={"first": "T2"}), "wrong type"),
        (change_labels(labels={"background": 0, "gland": "one"}), "wrong type"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(
    tmp_path, tables, alteration, message, capsys
):
    alteration(*tables)
    model = model_of(tmp_path / "model", tables)
    assert export.main(["--from-nnunet", str(model), str(tmp_path / "package")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "package").exists()


def test_weights_of_another_network_are_refused_by_trainer(tmp_path, tables):
    other = network(name="ResidualEncoderUNet")
    model = write_model(tmp_path / "m", *tables, {"0": other}, trainer_name="nnUNetTrainerMine")
    with pytest.raises(NnunetError, match="nnUNetTrainerMine built a network of its own"):
        export_nnunet(model, tmp_path / "package", ExportOptions())
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_missing_and_damaged_files_are_named(tmp_path, tables, name, damage):
    path = model_of(tmp_path / "model", tables) / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(NnunetError, match=path.name):
        read_model(tmp_path / "model")


def test_the_ignore_label_is_no_output(tmp_path, tables):
    table, _ = tables
    labels = dataset(labels={"background": 0, "gland": 1, "lesion": [2], "ignore": 3})
    found = read_model(write_model(tmp_path, table, labels, {"0": network()}))
    assert found.spec.channel_labels == (0, 1, 2)
    assert [label.value for label in found.head.labels] == [1, 2]


def test_the_command_wants_one_source(tmp_path, capsys):
    with pytest.raises(SystemExit):
        export.main([str(tmp_path / "package")])
    assert "give CHECKPOINT and PACKAGE, or --from-nnunet" in capsys.readouterr().err


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_networks_equal_the_published_library(dims, name):
    pytest.importorskip("nnunetv2")
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    planned = architecture(dims, name)
    theirs = get_network_from_plans(
        planned["network_class_name"],
        planned["arch_kwargs"],
        planned["_kw_requires_import"],
        2,
        3,
        deep_supervision=False,
    ).eval()
    ours = network(dims, 2, name=name)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 2, *[16] * dims)
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_preprocessing_equals_nnunet(tmp_path):
    pytest.importorskip("nnunetv2")
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from MIMSegment.Logic.preprocess import prepare

    table = plans(**{"3d_fullres": configuration()}) | {"transpose_forward": [2, 0, 1]}
    model = write_model(tmp_path, table, dataset(), {"0": network()})
    volume = image(shape=(24, 30, 9), spacing=(0.9, 1.2, 4.0))
    manager = PlansManager(json.loads((model / "plans.json").read_text()))
    expected, _, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        volume.array, None, {"spacing": volume.geometry.spacing}, manager,
        manager.get_configuration("3d_fullres"), dataset(),
    )  # fmt: skip
    found, _ = prepare(volume, read_model(model).spec.preprocessing)
    assert np.allclose(found, expected, atol=1e-3)
