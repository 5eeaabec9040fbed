"""The installed tree: configured by CMake against a stand-in of Slicer's build, then used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cmake", reason="needs CMake (the extra tests)")

from module_files import MODULE, ROOT, files_in_tree

# No compiler is needed for files that are only copied; CMake asks for one all the same.
NO_COMPILER = [
    f"-DCMAKE_{name}={value}"
    for language in ("C", "CXX")
    for name, value in (
        (f"{language}_COMPILER", sys.executable),
        (f"{language}_COMPILER_FORCED", "TRUE"),
    )
]
# What Slicer's factory does with the installed file, with the barest of Slicer around it.
LOADER = """
import importlib, json, sys, types
from importlib.util import module_from_spec, spec_from_file_location
from unittest import mock

class Base: pass

for name in ("qt", "slicer", "slicer.i18n", "slicer.util", "slicer.ScriptedLoadableModule"):
    sys.modules[name] = mock.MagicMock(__path__=[])
for part in ("", "Widget", "Test"):
    setattr(sys.modules["slicer.ScriptedLoadableModule"], "ScriptedLoadableModule" + part, Base)
sys.modules["slicer.util"].VTKObservationMixin = type("Mixin", (), {})

folder = sys.argv[1]
sys.path.append(folder)
spec = spec_from_file_location("MIMSegment", folder + "/MIMSegment.py")
module = module_from_spec(spec)
sys.modules["MIMSegment"] = module
spec.loader.exec_module(module)
"""
LOGIC = """
from MIMSegment.Logic import workflow
assert {"MIMSegment", "MIMSegmentWidget", "MIMSegmentTest"} <= set(vars(module))
print(json.dumps(workflow.__file__))
"""
OTHER_EXTENSION = """
sys.path.append(sys.argv[2])
import Logic
from MIMSegment.Logic import workflow
print(json.dumps([Logic.__file__, workflow.__file__]))
"""
SEGMENT = """
from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.alignment import combine
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.volume import read_volume

study = sample_study("phantom-abdomen")
study.check()
volume = combine([read_volume(path) for path in study.files.values()])
with JobQueue() as queue:
    job = queue.submit(volume, folder + "/Resources/Models/" + study.package)
    queue.wait(job, 120)
labels = [] if job.result is None else sorted(set(job.result.labels.ravel().tolist()))
print(json.dumps([str(job.state), job.error, labels]))
"""


def run(*command):
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    run(
        sys.executable, "-m", "cmake", "-S", ROOT, "-B", folder, "-G", "Unix Makefiles",
        f"-DSlicer_DIR={Path(__file__).parent / 'slicer_build'}", "-DBUILD_TESTING=ON",
        f"-DCMAKE_MAKE_PROGRAM={sys.executable}", *NO_COMPILER,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def installed(build, tmp_path_factory):
    """The folder that Slicer searches for scripted modules."""
    prefix = tmp_path_factory.mktemp("Slicer")
    run(sys.executable, "-m", "cmake", "--install", build, "--prefix", prefix)
    return prefix / "lib" / "Slicer-5.12" / "qt-scripted-modules"


def load_in_slicers_order(installed, code, *arguments):
    """Run ``code`` after the module was loaded, in a process of its own; what it printed."""
    command = [sys.executable, "-c", LOADER + code, installed, *arguments]
    return json.loads(run(*command).splitlines()[-1])


def test_what_is_installed_is_the_tree(installed):
    found = sorted(p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file())
    assert found == files_in_tree()
    for name in found:
        assert (installed / name).read_bytes() == (MODULE / name).read_bytes(), name


def test_slicer_finds_one_module_in_the_folder(installed):
    assert [path.name for path in installed.glob("*.py")] == ["MIMSegment.py"]


def test_the_module_loads_and_finds_its_logic_beside_itself(installed):
    assert load_in_slicers_order(installed, LOGIC) == str(installed / "Logic" / "workflow.py")


def test_another_extension_may_have_a_logic_of_its_own(installed, tmp_path):
    (tmp_path / "Logic").mkdir()
    (tmp_path / "Logic" / "__init__.py").touch()
    theirs, ours = load_in_slicers_order(installed, OTHER_EXTENSION, tmp_path)
    assert theirs == str(tmp_path / "Logic" / "__init__.py")
    assert ours == str(installed / "Logic" / "workflow.py")


def test_a_bundled_package_segments_its_sample_from_the_installed_tree(installed):
    pytest.importorskip("onnxruntime")
    state, error, labels = load_in_slicers_order(installed, SEGMENT)
    assert (state, error) == ("done", None)
    assert len(labels) > 2, "background and organs"


def test_the_self_test_and_the_generic_test_are_declared(build):
    listed = run(sys.executable, "-m", "cmake", "-E", "chdir", build, ctest(), "-N")
    assert "py_MIMSegment" in listed and "generic_MIMSegment" in listed


def ctest():
    import cmake

    return Path(cmake.CMAKE_BIN_DIR) / "ctest"
