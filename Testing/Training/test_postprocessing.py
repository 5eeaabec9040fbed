"""What export.py says of post-processing reaches the package, by name or from a file of nnU-Net."""

import json

import pytest

import export
from mim.agreement import ExportError
from mim.bundle import ExportOptions
from mim.nnunet_import import export_nnunet
from mim.postprocessing import named_groups, read_nnunet_postprocessing
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.package import load_package
from nnunet_fixture import configuration, dataset, network, plans, write_model
from test_export_networks import write_checkpoint

LABELS = [Label(2, "zone"), Label(5, "gland"), Label(7, "T2+FLAIR")]
STEP = "remove_all_but_largest_component_from_segmentation"


def nnunet_file(path, *labels_or_regions, step=STEP):
    """What nnU-Net's find_best_configuration leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "postprocessing_fns": [step] * len(labels_or_regions),
        "postprocessing_kwargs": [{"labels_or_regions": item} for item in labels_or_regions],
    }
    path.write_text(json.dumps(content))
    return path


def test_structures_are_named_alone_or_together():
    assert named_groups(["zone", "gland + zone"], LABELS) == ((2,), (5, 2))
    assert named_groups(["T2+FLAIR"], LABELS) == ((7,),)
    with pytest.raises(ExportError, match=r"no structure 'glans', but zone, gland"):
        named_groups(["zone+glans"], LABELS)


def test_labels_regions_and_lists_of_them_are_read(tmp_path):
    path = nnunet_file(tmp_path / "postprocessing.json", [2, 5, 7], 5, [[2, 5], [7]])
    assert read_nnunet_postprocessing(path, LABELS) == ((2, 5, 7), (5,), (2, 5, 7))
    assert read_nnunet_postprocessing(nnunet_file(path), LABELS) == ()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "{}", "is no postprocessing.json of nnU-Net"),
        ("a.json", "nothing", "is no postprocessing.json of nnU-Net"),
        ("absent.json", None, "FileNotFoundError"),
        ("postprocessing.pkl", None, r"may hold code; name postprocessing\.json"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, name, text, reason):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ExportError, match=reason):
        read_nnunet_postprocessing(tmp_path / name, LABELS)


def test_steps_that_the_package_cannot_take_are_refused(tmp_path):
    path = nnunet_file(tmp_path / "postprocessing.json", 2, step="fill_holes")
    with pytest.raises(ExportError, match="the step 'fill_holes' cannot be converted"):
        read_nnunet_postprocessing(path, LABELS)
    path = nnunet_file(tmp_path / "postprocessing.json", [2, 3])
    with pytest.raises(ExportError, match="of another model: this one has no label 3"):
        read_nnunet_postprocessing(path, LABELS)


def test_our_own_package_and_its_card_say_what_is_kept(tmp_path, capsys):
    write_checkpoint(tmp_path / "last.pt", "resenc_unet")
    command = [str(tmp_path / "last.pt"), str(tmp_path / "package"), "--keep-largest-component"]
    assert export.main([*command, "thing 3"]) == 2
    assert "no structure 'thing 3', but thing 0, thing 1" in capsys.readouterr().err
    assert export.main([*command, "thing 1", "--keep-largest-component", "thing 0+thing 1"]) == 0
    package = load_package(tmp_path / "package")
    first, second = (label.value for label in package.labels)
    assert package.spec.keep_largest_component == ((second,), (first, second))
    card = (package.path / "docs/README.md").read_text()
    assert "largest connected part is kept of thing 1; of thing 0 and thing 1" in card


def test_a_model_of_nnunet_brings_what_was_found_to_be_better(tmp_path):
    table = plans(**{"3d_fullres": configuration()})
    model = write_model(tmp_path / "model", table, dataset(), {"0": network()})
    path = nnunet_file(model / "crossval_results_folds_0/postprocessing.json", [1, 2])
    options = ExportOptions(postprocessing=str(path), keep_largest_component=["lesion"])
    assert "--postprocessing" not in export_nnunet(model, tmp_path / "package", options)
    package = load_package(tmp_path / "package")
    assert package.spec.keep_largest_component == ((1, 2), (2,))
    assert "kept of gland and lesion; of lesion" in (package.path / "docs/README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["last.pt", "--postprocessing", "x.json"], "--postprocessing goes with --from-nnunet"),
        (["--to-nnssl", "last.pt", "--keep-largest-component", "a"], "is for packages"),
    ],
)
def test_options_of_other_forms_are_refused(arguments, reason, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export.main([*arguments, str(tmp_path / "package")])
    assert reason in capsys.readouterr().err


def test_a_classifier_keeps_no_component(tmp_path, capsys):
    write_checkpoint(tmp_path / "last.pt", "resenc_classifier")
    arguments = [str(tmp_path / "last.pt"), str(tmp_path / "p"), "--keep-largest-component", "a"]
    assert export.main(arguments) == 2
    assert "--keep-largest-component is for segmentation" in capsys.readouterr().err
