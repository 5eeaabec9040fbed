"""NRRD and MetaImage files whose voxels are damaged, cut short, or in files of their own."""

import errno
import gzip
import os
import re

import numpy as np
import pytest

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.payload import damage_told
from MIMSegment.Logic.volume import Geometry, Volume, itk, read_volume, to_itk

SHAPE = (20, 30, 40)
GRID = Geometry.from_parts(SHAPE, (1, 1, 1))
VALUES = np.random.default_rng(0).integers(0, 200, SHAPE).astype("<i2")
SLICE = VALUES[0].nbytes
NRRD = "NRRD0004\ntype: {type}\ndimension: 3\nspace: LPS\nsizes: 40 30 20\n"
NRRD += "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
META += "DimSize = 40 30 20\nElementType = MET_SHORT\n"
# Where ITK puts the voxels of a file that it writes, compressed and not.
WRITTEN = {
    "a.nrrd": ("a.nrrd", "a.nrrd"),
    "a.nhdr": ("a.raw.gz", "a.raw"),
    "a.mha": ("a.mha", "a.mha"),
    "a.mhd": ("a.zraw", "a.raw"),
}


def write(folder, name, compressed=True, array=VALUES):
    """An image as ITK writes it; its path, and that of the file with its voxels."""
    image = to_itk(Volume(array.reshape(-1, *SHAPE), Geometry.from_parts(SHAPE, (1, 1, 1))))
    itk().WriteImage(image, str(folder / name), useCompression=compressed)
    return folder / name, folder / WRITTEN[name][not compressed]


def nrrd(path, lines: str, data: bytes = b"", kind="short"):
    path.write_bytes(f"{NRRD.format(type=kind)}{lines}\n".encode() + data)
    return path


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", WRITTEN)
def test_sound_files_are_read_as_written(tmp_path, name, compressed):
    path, _ = write(tmp_path, name, compressed)
    assert np.array_equal(read_volume(path).array[0], VALUES)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_sound_files_of_every_type_and_of_channels_are_read(tmp_path, name, kind):
    array = np.stack([VALUES % 100] * 3).astype(kind)
    for compressed in (True, False):
        path, _ = write(tmp_path, name, compressed, array)
        assert np.array_equal(read_volume(path).array, array)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_flipped_byte_in_compressed_voxels_is_noticed(tmp_path, name):
    path, data_file = write(tmp_path, name)
    original = data_file.read_bytes()
    for place in np.linspace(len(original) // 3, len(original) - 5, 12).astype(int):
        damaged = bytearray(original)
        damaged[place] ^= 0x55
        data_file.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{data_file.name} is damaged.*download it again"):
            read_volume(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii.gz"])
def test_damage_is_told_in_words_for_people(tmp_path, name):
    path = tmp_path / name
    itk().WriteImage(to_itk(Volume(VALUES[None], GRID)), str(path), useCompression=True)
    sound = path.read_bytes()
    size = {"a.mha": 4}.get(name, 8)  # of the checksum, and in gzip the length behind it
    for place, reason in ((-size, "its checksum does not fit"),
                          (len(sound) // 2, "its ")):  # fmt: skip
        damaged = bytearray(sound)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(InputError) as error:
            read_volume(path)
        assert str(error.value).startswith(f"{path} is damaged ({reason}")
        assert str(error.value).endswith("); copy or download it again.")
        assert not re.search(r"0x|-?\d|CRC|Error", str(error.value).removeprefix(str(path)))


def test_a_file_that_may_not_be_read_is_not_called_damaged():
    told = pytest.raises(InputError, match=r"^a\.nrrd cannot be read \(Permission denied\); check")
    with told, damage_told("a.nrrd"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("lost", [1, 5000])
def test_voxels_cut_short_are_told_so(tmp_path, name, compressed, lost):
    path, data_file = write(tmp_path, name, compressed)
    data_file.write_bytes(data_file.read_bytes()[:-lost])
    with pytest.raises(InputError, match=r"cut short.*download it again") as error:
        read_volume(path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_fewer_compressed_voxels_than_the_header_states_are_told(tmp_path, name):
    path, _ = write(tmp_path, name)
    data = path.read_bytes()
    stated = {"a.nrrd": b"sizes: 40 30 2", "a.mha": b"DimSize = 40 30 2"}[name]
    path.write_bytes(data.replace(stated + b"0", stated + b"1"))
    with pytest.raises(InputError, match=f"cut short: {20 * SLICE} of {21 * SLICE} bytes"):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_header_cut_short_is_told_so(tmp_path, name):
    path, _ = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=rf"{name} ends inside its header"):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_a_header_without_its_data_file_names_what_is_missing(tmp_path, name):
    path, data_file = write(tmp_path, name)
    data_file.unlink()
    with pytest.raises(InputError, match=rf"has its voxels in {data_file.name}, which is not th"):
        read_volume(path)


def test_a_nrrd_may_have_its_voxels_behind_other_bytes(tmp_path):
    voxels = VALUES.tobytes()
    files = (
        nrrd(tmp_path / "a.nrrd", "encoding: raw\nbyte skip: 7\n", b"1234567" + voxels),
        nrrd(tmp_path / "b.nrrd", "encoding: raw\nbyte skip: -1\n", b"anything" + voxels),
        nrrd(tmp_path / "c.nrrd", "encoding: gzip\nline skip: 2\n",
             b"one\ntwo\n" + gzip.compress(voxels)),
        nrrd(tmp_path / "d.nrrd", "encoding: gz\nkey:=value: x\n# note\n", gzip.compress(voxels),
             "signed short int"),
        nrrd(tmp_path / "e.nrrd", "encoding: raw\n", voxels, "int16_t"),
    )  # fmt: skip
    for path in files:
        assert np.array_equal(read_volume(path).array[0], VALUES)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("way", ["list", "pattern"])
def test_a_nrrd_in_several_files_is_read_and_a_short_one_noticed(tmp_path, packed, way):
    names = [f"part{k:02d}" for k in range(20)]
    for name, values in zip(names, VALUES, strict=True):
        data = values.tobytes()
        (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    data_file = "LIST\n" + "\n".join(names) if way == "list" else "part%02d 0 19 1"
    encoding = "gzip" if packed else "raw"
    path = nrrd(tmp_path / "a.nhdr", f"encoding: {encoding}\ndata file: {data_file}")
    assert np.array_equal(read_volume(path).array[0], VALUES)
    (tmp_path / "part07").write_bytes((tmp_path / "part07").read_bytes()[:-3])
    with pytest.raises(InputError, match="cut short"):
        read_volume(path)


def test_a_metaimage_may_skip_the_header_of_another_format(tmp_path):
    (tmp_path / "voxels").write_bytes(b"x" * 348 + VALUES.tobytes())
    for size in (348, -1):
        path = tmp_path / "a.mhd"
        path.write_text(f"{META}HeaderSize = {size}\nElementDataFile = voxels\n")
        assert np.array_equal(read_volume(path).array[0], VALUES)
    path.write_text(f"{META}HeaderSize = 352\nElementDataFile = voxels\n")
    with pytest.raises(InputError, match=re.escape(f"{20 * SLICE - 4} of {20 * SLICE} bytes")):
        read_volume(path)


def test_a_metaimage_in_several_files_is_read_and_a_short_one_noticed(tmp_path):
    for k, values in enumerate(VALUES):
        (tmp_path / f"s{k:03d}.raw").write_bytes(values.tobytes())
    listed = "LIST\n" + "\n".join(f"s{k:03d}.raw" for k in range(20))
    for data_file in (listed, "s%03d.raw 0 19 1"):
        path = tmp_path / "a.mhd"
        path.write_text(f"{META}ElementDataFile = {data_file}\n")
        assert np.array_equal(read_volume(path).array[0], VALUES)
    (tmp_path / "s003.raw").write_bytes(VALUES[3].tobytes()[:-1])
    with pytest.raises(InputError, match=rf"{20 * SLICE - 1} of {20 * SLICE} bytes"):
        read_volume(path)
