"""Zip files that are damaged or made to harm."""

import os
import random
import stat
import sys
import zipfile

import pytest

from MIMSegment.Logic.archive import ArchiveLimits, copy_folder, extract_archive, portable_path
from MIMSegment.Logic.errors import Cancelled, MIMSegmentError, OutputError, PackageError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "inside"
    path.mkdir()
    return path


def write_zip(path, names, compression=zipfile.ZIP_DEFLATED):
    """A zip with these member names as they are, whatever zipfile thinks of them."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in names:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo("placeholder")
            if isinstance(name, str):
                info.filename = info.orig_filename = name
                info.compress_type = compression
            archive.writestr(info, b"" if info.filename.endswith("/") else b"text")
    return path


def files_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_files_and_folders_come_out_as_they_went_in(tmp_path, folder):
    long = "/".join(["ordner" * 20] * 5) + "/" + "ü" * 120 + ".txt"
    names = ["a.txt", "models/", "models/b.onnx", "c/d/e.txt", "肝臓/Größe – 1.csv", long]
    extract_archive(write_zip(tmp_path / "a.zip", names), folder)
    assert files_below(folder) == sorted(name for name in names if not name.endswith("/"))
    assert (folder / "a.txt").read_bytes() == b"text"


def test_finder_litter_is_left_out(tmp_path, folder):
    names = ["p/a.txt", "__MACOSX/p/._a.txt", "p/.DS_Store"]
    extract_archive(write_zip(tmp_path / "a.zip", names), folder)
    assert files_below(folder) == ["p/a.txt"]


def link(name, target_type=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (target_type | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "names",
    [
        ["../evil.txt"],
        ["a/../../evil.txt"],
        ["/etc/evil.txt"],
        ["//server/share/evil.txt"],
        ["C:/evil.txt"],
        ["C:evil.txt"],
        ["..\\evil.txt"],
        ["a\\b.txt"],
        ["a/./b.txt"],
        ["a//b.txt"],
        ["a.txt:stream"],
        ["evil\x00.txt"],
        ["evil\n.txt"],
        ["NUL"],
        ["models/com1.onnx"],
        ["aux .txt"],
        ["dot./a.txt"],
        ["space "],
        ["x" * 256],
        ["ü" * 128],
        [link("link")],
        [link("fifo", stat.S_IFIFO)],
        ["a.txt", "a.txt"],
        ["a.txt", "A.TXT"],
        ["\u00fc.txt", "u\u0308.txt"],
        ["a", "a/b.txt"],
        ["a/b.txt", "a"],
        ["a", "a/"],
        ["A/b.txt", "a"],
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unsafe_names_are_refused_before_anything_is_written(tmp_path, folder, names):
    archive = write_zip(tmp_path / "a.zip", ["first.txt", *names])
    with pytest.raises(PackageError, match=r"a\.zip is not safe to unpack"):
        extract_archive(archive, folder)
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "inside"]
    assert os.listdir(folder) == []


def test_safe_names_are_not_refused():
    for name in ("a", "a.b/c d.txt", "consul.txt", "..a", "a..b", "ü/é", ".hidden"):
        assert portable_path(name).as_posix() == name


def test_an_encrypted_file_is_refused(tmp_path, folder):
    archive = write_zip(tmp_path / "a.zip", ["a.txt"])
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    archive.write_bytes(data)
    with pytest.raises(PackageError, match="encrypted"):
        extract_archive(archive, folder)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(tmp_path, folder, compression):
    with pytest.raises(PackageError, match="another method"):
        extract_archive(write_zip(tmp_path / "a.zip", ["a.txt"], compression), folder)


def test_a_bomb_is_refused_by_its_ratio_but_small_text_that_packs_well_is_not(tmp_path, folder):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(4_000_000))
    with pytest.raises(PackageError, match=r"would unpack to 4 MB"):
        extract_archive(bomb, folder, limits=ArchiveLimits(ratio_from=1_000_000))
    extract_archive(bomb, folder)
    assert (folder / "zeros").stat().st_size == 4_000_000


def test_too_many_files_or_bytes_are_refused(tmp_path, folder):
    archive = write_zip(tmp_path / "a.zip", [f"{n}.txt" for n in range(5)])
    with pytest.raises(PackageError, match="5 files"):
        extract_archive(archive, folder, limits=ArchiveLimits(files=4))
    with pytest.raises(PackageError, match="20 bytes"):
        extract_archive(archive, folder, limits=ArchiveLimits(bytes=19))
    assert os.listdir(folder) == []


def test_too_little_space_is_said_before_anything_is_written(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3}))
    with pytest.raises(OutputError, match="needs 4 bytes"):
        extract_archive(write_zip(tmp_path / "a.zip", ["a.txt"]), folder)
    assert os.listdir(folder) == []


def test_damage_anywhere_is_a_clear_error(tmp_path, folder):
    whole = tmp_path / "whole.zip"
    noise = random.Random(1)
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"folder/{number}.bin", noise.randbytes(300))
    good = whole.read_bytes()
    damaged_ones = [good[:n] for n in range(0, len(good), 29)]
    for _ in range(300):
        data = bytearray(good)
        data[noise.randrange(len(data))] ^= 1 << noise.randrange(8)
        damaged_ones.append(bytes(data))
    for number, data in enumerate(damaged_ones):
        damaged = tmp_path / "damaged.zip"
        damaged.write_bytes(data)
        target = folder / str(number)
        target.mkdir()
        try:
            extract_archive(damaged, target)
        except MIMSegmentError as error:
            assert "damaged.zip" in str(error)
    assert sorted(os.listdir(tmp_path)) == ["damaged.zip", "inside", "whole.zip"]


def test_a_flipped_byte_of_the_content_is_found(tmp_path, folder):
    archive = write_zip(tmp_path / "a.zip", ["a.txt"], zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"text", b"tent"))
    with pytest.raises(PackageError, match="damaged"):
        extract_archive(archive, folder)


def test_an_empty_zip_is_refused(tmp_path, folder):
    with pytest.raises(PackageError, match="is empty"):
        extract_archive(write_zip(tmp_path / "a.zip", ["folder/"]), folder)


def test_unpacking_and_copying_can_be_canceled(tmp_path, folder):
    archive = write_zip(tmp_path / "a.zip", ["a.txt"])
    with pytest.raises(Cancelled):
        extract_archive(archive, folder, cancel=lambda: True)
    with pytest.raises(Cancelled):
        copy_folder(tmp_path, folder, cancel=lambda: True)


def test_copying_keeps_the_tree_and_refuses_links(tmp_path, folder):
    source = tmp_path / "source"
    (source / "models").mkdir(parents=True)
    (source / "models" / "a.onnx").write_bytes(b"network")
    (source / ".DS_Store").write_bytes(b"")
    copy_folder(source, folder)
    assert files_below(folder) == ["models/a.onnx"]
    if sys.platform != "win32":
        (source / "link").symlink_to("/etc/passwd")
        with pytest.raises(PackageError, match="link is a link"):
            copy_folder(source, folder)


def test_copying_refuses_a_folder_that_is_too_big_for_a_package(tmp_path, folder):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / str(number)).write_bytes(b"12345")
    for limits in (ArchiveLimits(files=2), ArchiveLimits(bytes=14)):
        with pytest.raises(PackageError, match="more files or bytes"):
            copy_folder(source, folder, limits=limits)
    assert os.listdir(folder) == []
