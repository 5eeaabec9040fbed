"""What the documentation points at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def words(page: Path, pattern: str) -> set[str]:
    return set(re.findall(pattern, page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    targets = words(page, r"\]\(([^)#\s]+)[^)]*\)")
    for target in targets:
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_and_recipes_in_commands_are_there(page):
    for name in words(page, r"\b((?:training|benchmarks|Testing)/[\w/]+\.(?:py|toml))\b"):
        assert (ROOT / name).is_file(), name


def test_the_tests_that_the_checklist_names_are_there():
    page = ROOT / "docs" / "extension-checklist.md"
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "Testing").rglob("test_*.py")]
    sources.append((ROOT / "MIMSegment" / "MIMSegment.py").read_text(encoding="utf-8"))
    functions, files = words(page, r"\b(test_\w+)\b(?!\.py)"), words(page, r"\b(test_\w+\.py)\b")
    assert functions and files
    for name in functions:
        assert any(f"def {name}(" in source for source in sources), name
    for name in files:
        assert list((ROOT / "Testing").rglob(name)), name
