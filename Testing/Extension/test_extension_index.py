"""The rules of Slicer's Extensions Index, checked here before a reviewer does."""

import ast
import json
import re
import subprocess
import sys

import pytest

from module_files import CMAKE, MODULE, ROOT, expected_lists, written_lists

# From the index's checks: what an extension may name as its category, and what it may be called.
CATEGORIES = {
    "Active Learning", "Analysis", "Auto3dgm", "Cardiac", "Chest Imaging Platform",
    "Converters", "DICOM", "Developer Tools", "Diffusion", "Examples", "Filtering", "IGT",
    "Informatics", "Neuroimaging", "Orthodontics", "Photogrammetry", "Printing",
    "Quantification", "Radiotherapy", "Registration", "Rendering", "Segmentation", "Sequences",
    "Shape Analysis", "Shape Regression", "Shape Visualization", "SlicerCMF", "SlicerMorph",
    "Spectral Imaging", "Surface Models", "Tomographic Reconstruction", "Tracking",
    "Tractography", "Ultrasound", "Utilities", "Vascular Modeling Toolkit",
}  # fmt: skip
# Slicer gives these; everything else may be missing or slow to load when the module is.
FILE_SCOPE = {"slicer", "vtk", "SimpleITK", "numpy", "scipy", "qt", "ctk", "MIMSegment"}


@pytest.fixture(scope="module")
def cmake():
    """The variables that the top CMake file sets, each as one quoted string on a line."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = dict(re.findall(r'^set\((EXTENSION_\w+) "([^"\n]*)"\)$', text, re.MULTILINE))
    found["project"] = re.search(r"^project\((\w+)\)", text, re.MULTILINE)[1]
    return found


@pytest.fixture(scope="module")
def s4ext():
    lines = (ROOT / "MIMSegment.s4ext").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    assert len({key for key, _ in pairs}) == len(pairs), "of a repeated key the last one wins"
    return dict(pairs)


@pytest.fixture(scope="module")
def catalog_entry():
    return json.loads((ROOT / "MIMSegment.json").read_text(encoding="utf-8"))


def test_the_three_descriptions_say_the_same(cmake, s4ext, catalog_entry):
    for key in ("homepage", "category", "contributors", "description", "depends", "keywords"):
        assert s4ext[key] == cmake[f"EXTENSION_{key.upper()}"], key
    assert s4ext["iconurl"] == cmake["EXTENSION_ICONURL"]
    assert s4ext["screenshoturls"] == cmake["EXTENSION_SCREENSHOTURLS"]
    assert catalog_entry["category"] == s4ext["category"]
    assert catalog_entry["scm_url"] == s4ext["scmurl"]
    assert catalog_entry["scm_revision"] == s4ext["scmrevision"]
    assert str(catalog_entry["tier"]) == s4ext["tier"]
    assert catalog_entry["build_dependencies"] == []


def test_name_category_and_repository_are_what_the_index_accepts(cmake, catalog_entry):
    assert cmake["project"] == "MIMSegment" == MODULE.name
    assert not cmake["project"].startswith("Slicer")
    assert cmake["EXTENSION_CATEGORY"] in CATEGORIES
    assert re.fullmatch(r"https://github\.com/\w+/Slicer\w+\.git", catalog_entry["scm_url"])
    assert catalog_entry["scm_url"].removesuffix(".git") == cmake["EXTENSION_HOMEPAGE"]
    assert set(catalog_entry) >= {"$schema", "category", "scm_url"}


def test_icon_and_screenshots_are_pictures_in_the_tree(cmake):
    urls = [cmake["EXTENSION_ICONURL"], *cmake["EXTENSION_SCREENSHOTURLS"].split()]
    assert len(urls) >= 2
    for url in urls:
        path = ROOT / url.split("/main/", 1)[1]
        assert path.read_bytes().startswith(b"\x89PNG"), path
    size = (MODULE / "Resources" / "Icons" / "MIMSegment.png").read_bytes()[16:24]
    assert size == (128).to_bytes(4, "big") * 2


def test_the_descriptions_end_lines_as_unix_does():
    for name in ("MIMSegment.json", "MIMSegment.s4ext", "CMakeLists.txt"):
        assert b"\r" not in (ROOT / name).read_bytes()


def test_every_file_of_the_module_is_installed():
    written = written_lists(CMAKE.read_text(encoding="utf-8"))
    for name, files in expected_lists().items():
        assert written[name] == files, "run: python Testing/Extension/module_files.py"


def test_a_clone_is_small_enough():
    packs = subprocess.run(
        ["git", "count-objects", "-v"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    counts = dict(line.split(": ") for line in packs.stdout.splitlines())
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    files = sum((ROOT / f).stat().st_size for f in tracked.stdout.split("\0") if f)
    megabytes = (int(counts["size"]) + int(counts["size-pack"])) / 1000 + files / 1e6
    assert megabytes < 100


def is_constant(node: ast.stmt) -> bool:
    """Whether it gives a name to a constant, or to a path made of this file's own."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    return isinstance(node, ast.Assign) and all(
        ast.unparse(call.func).startswith("os.path.") for call in calls
    )


PANEL = [MODULE / "MIMSegment.py", *sorted((MODULE / "Widgets").glob("*.py"))]


@pytest.mark.parametrize("path", PANEL, ids=lambda path: path.name)
def test_the_panel_imports_little_and_does_nothing_when_it_is_loaded(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            for imported in names:
                top = imported.split(".")[0]
                assert top in FILE_SCOPE or top in sys.stdlib_module_names, imported
        else:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert (
                is_constant(node) or is_text or isinstance(node, ast.ClassDef | ast.FunctionDef)
            ), f"line {node.lineno} is executed when Slicer starts"


def test_requirements_name_the_runtime_and_nothing_that_slicer_bundles():
    path = MODULE / "Resources" / "requirements.txt"
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert [re.split(r"[<>=]", line)[0] for line in lines] == ["onnxruntime"]
