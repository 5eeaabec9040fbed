"""Who may import whom, held by reading every import statement of the tree."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOGIC = sorted((ROOT / "MIMSegment" / "Logic").glob("*.py"))
INFERENCE = {"onnxruntime", "openvino", "torch"}
SCENE = {"slicer", "vtk", "vtkmodules"}
LATE = {"torch", "monai", "SimpleITK", "scipy", "pydicom", "highdicom", "onnxruntime", "openvino"}


def imports(path: Path, file_scope_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if file_scope_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", LOGIC, ids=lambda p: p.name)
def test_logic_imports_nothing_above_it(path):
    names = imports(path)
    assert not top(names) & {"web", "training", "mim", "Testing", "benchmarks", "qt", "ctk"}
    assert all(n.startswith("MIMSegment.Logic") for n in names if n.startswith("MIMSegment"))


@pytest.mark.parametrize("path", LOGIC, ids=lambda p: p.name)
def test_only_scene_knows_mrml_and_only_sessions_know_inference_libraries(path):
    names = top(imports(path))
    if not path.stem.startswith("scene"):
        assert not names & SCENE
    if path.stem not in ("runtime", "openvino_session"):
        assert not names & INFERENCE


@pytest.mark.parametrize("path", LOGIC, ids=lambda p: p.name)
def test_logic_imports_heavy_libraries_only_when_they_are_needed(path):
    assert not top(imports(path, file_scope_only=True)) & LATE


def test_no_package_file_exports_a_top_level_name_to_slicer():
    for folder in ("MIMSegment", "MIMSegment/Logic", "Testing"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_training_reads_and_preprocesses_with_the_code_of_the_module():
    for path in sorted((ROOT / "training").rglob("*.py")):
        names = top(imports(path))
        assert not names & {"slicer", "vtk", "qt", "ctk", "web"}, path
        for library in ("nibabel", "nrrd", "itk"):
            assert library not in names, f"{path} reads images beside Logic/volume.py"
