"""`prepare.py --test-list` holds back whom a list names; a line that names nobody is told."""

from pathlib import Path

import pytest

from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import Case
from mim.held_back_list import with_test_list
from MIMSegment.Logic.errors import InputError
from small_sets import table


def case(name: str, subject: str = "", place: str = "") -> Case:
    return Case(name, subject or name, (Path("/data") / (place or f"{name}.nii.gz"),))


def held(tmp_path, text: str, cases, encoding="utf-8") -> list[str]:
    (tmp_path / "test.txt").write_text(text, encoding=encoding)
    return [c.id for c in with_test_list(cases, tmp_path / "test.txt") if c.split == "test"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a b.nii.gz", "a_b"),
        ("Patient 7", "seven"),
        ("1.2.840.113619", "p_1.2.840.113619"),
        ("scan.v2.nrrd", "scan.v2"),
        ("p/1.2.840.113619", "p_1.2.840.113619"),
    ],
)
def test_a_line_is_one_name_with_its_spaces_and_dots(tmp_path, line, expected):
    cases = [
        *map(case, ("a", "b", "1", "scan", "7", "Patient", "scan.v2")),
        case("a_b", place="a b.nii.gz"),
        case("seven", "Patient 7"),
        case("p_1.2.840.113619", "p", "p/1.2.840.113619"),
    ]
    assert held(tmp_path, f"\n  {line}\t\n\n", cases) == [expected]


def test_a_list_from_windows_names_all_its_cases(tmp_path):
    assert held(tmp_path, "a\r\nb\r\n", map(case, "abc"), "utf-8-sig") == ["a", "b"]


def test_lines_that_name_nobody_are_told_not_passed_over(tmp_path):
    with pytest.raises(InputError, match=r"'nobody'\.") as error:
        held(tmp_path, "a\nnobody\nb.nii.gz\n", list(map(case, "abc")))
    assert "test.txt" in str(error.value) and "'a'" not in str(error.value)
    with pytest.raises(InputError, match="'x0', 'x1', 'x2', 'x3', 'x4' and 2 more"):
        held(tmp_path, "\n".join(f"x{i}" for i in range(7)), list(map(case, "abc")))


def test_a_list_without_a_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"test\.txt is empty"):
        held(tmp_path, "\n \n", list(map(case, "abc")))


def test_a_list_of_what_cannot_be_used_does_not_end_in_a_drawn_split(tmp_path):
    rows = [f"img/p{i}.png,{'ab'[i % 2]}" for i in range(6)]
    data = table(tmp_path / "x", "\n".join(["file,class", *rows]))
    (data / "img/p1.png").write_bytes(b"no picture")
    (tmp_path / "test.txt").write_text("p1.png\n")
    options = PrepareOptions(
        stages=3, jobs=1, picture_size=32, test_list=str(tmp_path / "test.txt")
    )
    with pytest.raises(InputError, match=r"test\.txt names is usable(.|\n)*p1\.png"):
        prepare_dataset(data, tmp_path / "cache", options)
    assert not (tmp_path / "cache").exists()


def test_a_list_may_name_a_subject_that_is_excluded(tmp_path):
    rows = [f"img/p{i}.png,{'ab'[i % 2]}" for i in range(6)]
    data = table(tmp_path / "x", "\n".join(["file,class", *rows]))
    (tmp_path / "test.txt").write_text("p1.png\np2.png\n")
    options = PrepareOptions(
        stages=3, jobs=1, picture_size=32, test_list=str(tmp_path / "test.txt"), exclude=("img_p1",)
    )
    assert "4 subjects to train on, 1 held back" in prepare_dataset(
        data, tmp_path / "cache", options
    )
