"""`make demo HEADLESS=1`: the page's own actions on a phantom, and what they leave behind."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")

from MIMSegment.Logic.errors import DeviceError
from MIMSegment.Logic.offscreen import draw_without_screen
from MIMSegment.Logic.samples import sample_study
from mimsegment_web.demo import main


def test_the_demo_without_a_browser_writes_report_scene_and_pictures(tmp_path, capsys):
    assert main(["--headless", "-o", str(tmp_path)]) == 0
    (study,) = tmp_path.iterdir()
    assert {".html", ".mrb", ".csv", ".nrrd", ".png"} <= {path.suffix for path in study.iterdir()}
    records = json.loads((study / "review.json").read_text(encoding="utf-8"))["records"]
    assert {"accepted", "editing", "open"} <= {record["verdict"] for record in records}
    said = capsys.readouterr().out
    assert "phantom" in said and "T2w" in said and "No DICOM SEG: It refers to" in said
    surfaces = np.asarray(Image.open(study / "surfaces.png").convert("HSV"))
    assert (surfaces[..., 1] > 60).mean() > 0.005  # the structures; the ground is pale
    wrote = [line.removeprefix("Wrote ") for line in said.splitlines() if "Wrote " in line]
    assert wrote and all((tmp_path / name).stat().st_size > 0 for name in wrote)


def test_a_study_without_a_model_gets_one_that_fits(tmp_path, capsys):
    study = sample_study("phantom-abdomen").folder
    assert main([str(study), "--headless", "-o", str(tmp_path)]) == 0
    assert "Abdominal organs" in capsys.readouterr().out


def test_a_folder_that_no_model_fits_ends_in_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "--headless", "-o", str(tmp_path / "demo")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_without_egl_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("MIMSegment.Logic.offscreen._LIBRARY", "libEGL.missing.so")
    with pytest.raises(DeviceError, match="apt-get install libegl1"):
        draw_without_screen()
    monkeypatch.setenv("VTK_DEFAULT_OPENGL_WINDOW", "vtkXOpenGLRenderWindow")
    draw_without_screen()
