import json

import pytest

from MIMSegment.Logic.errors import OutputError, PackageError
from MIMSegment.Logic.labels import labels_from_csv, labels_to_csv
from MIMSegment.Logic.package import load_package
from tiny_package import BRIGHT, threshold_spec, write_threshold_package


def edit_metadata(package, change):
    path = package.path / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def test_package_round_trip_keeps_everything(tmp_path):
    written = write_threshold_package(tmp_path / "package", threshold_spec(inputs=3))
    package = load_package(tmp_path / "package")
    assert package == written
    assert package.spec == threshold_spec(inputs=3)
    assert package.labels == (BRIGHT,)
    assert (package.id, package.version) == ("bright-thing", "1.2.0")


def test_writing_again_replaces_a_package_but_never_another_folder(tmp_path):
    write_threshold_package(tmp_path / "package")
    write_threshold_package(tmp_path / "package", threshold_spec(inputs=2))
    assert len(load_package(tmp_path / "package").spec.inputs) == 2
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a model package"):
        write_threshold_package(tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_damage_is_named_with_file_and_reason(tmp_path):
    def damaged(name, change, *words):
        package = write_threshold_package(tmp_path / name)
        change(package)
        with pytest.raises(PackageError) as error:
            load_package(package.path)
        for word in words:
            assert word in str(error.value)
        assert "\n" not in str(error.value)

    def cut(package):
        path = package.path / "models/model.onnx"
        path.write_bytes(path.read_bytes()[:100])

    damaged("cut", cut, "model.onnx", "checksum")
    damaged("gone", lambda p: (p.path / "models/model.onnx").unlink(), "model.onnx", "missing")
    damaged("nometa", lambda p: (p.path / "configs/metadata.json").unlink(), "metadata.json")
    damaged("badjson", lambda p: (p.path / "configs/metadata.json").write_text("{"), "JSON")
    damaged("labels", lambda p: (p.path / "labels.csv").write_text("x"), "labels.csv", "checksum")
    spec = lambda change: lambda p: edit_metadata(p, lambda m: change(m["mimsegment"]))  # noqa: E731
    damaged("nokey", lambda p: edit_metadata(p, lambda m: m.pop("mimsegment")), "training/export")
    damaged("newer", spec(lambda m: m.update(format_version=99)), "99", "update")
    damaged("field", spec(lambda m: m["model"].update(frobnicate=1)), "frobnicate")
    damaged("patch", spec(lambda m: m["model"].update(patch=[0, 1, 2])), "patch")
    damaged("norm", spec(lambda m: m["model"]["preprocessing"].update(normalization=[])), "0 norm")
    damaged("label", spec(lambda m: m["model"].update(channel_labels=[0, 9])), "label 9")
    for n, value in enumerate((70_000, -1, 1.5)):
        changed = spec(lambda m, v=value: m["model"].update(channel_labels=[0, v]))
        damaged(f"value{n}", changed, "not all from 0 to 65535")
    damaged("id", spec(lambda m: m.update(id="../up")), "../up")


def test_a_folder_that_is_no_package_is_named(tmp_path):
    with pytest.raises(PackageError, match="does not exist"):
        load_package(tmp_path / "nowhere")
    with pytest.raises(PackageError, match="not a model package"):
        load_package(tmp_path)


def test_label_table_is_read_with_or_without_colors(tmp_path):
    text = labels_to_csv([BRIGHT])
    assert labels_from_csv(text) == [BRIGHT]
    columns = [line.rsplit(",", 3)[0] for line in text.splitlines()]
    plain = labels_from_csv("\n".join(columns))
    assert plain[0].type == BRIGHT.type
    with pytest.raises(PackageError, match="line 3"):
        labels_from_csv(text + text.splitlines()[1])
