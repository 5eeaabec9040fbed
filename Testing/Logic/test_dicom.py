"""DICOM geometry and the volumes of a series: every trap that a loader can fall into."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from scipy.ndimage import binary_erosion

from dicom_writer import AXIAL, noise, write_series
from MIMSegment.Logic.dicom import read_series, scan
from MIMSegment.Logic.dicom_headers import Frame
from MIMSegment.Logic.dicom_split import split_series
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.volume import read_volume

OBLIQUE = np.array([[0.96, 0.28, 0.0], [-0.168, 0.576, -0.8]])


# Geometry


def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path):
    array = noise()
    names = [f"{k}.dcm" for k in (3, 0, 4, 1, 2)]
    numbers = [9, 1, 5, 7, 2]
    write_series(tmp_path, array, names=names, slice_tags=lambda k: {"InstanceNumber": numbers[k]})
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], array)
    assert volume.array.dtype == np.int16
    assert volume.warnings == ()


def test_oblique_geometry_is_exact(tmp_path):
    write_series(tmp_path, noise(), orientation=OBLIQUE, spacing=(2.5, 0.5, 0.75))
    geometry = read_volume(tmp_path).geometry
    normal = np.cross(*OBLIQUE)
    columns = np.stack([OBLIQUE[0] * 0.75, OBLIQUE[1] * 0.5, normal * 2.5], axis=1)
    assert np.allclose(geometry.ijk_to_lps[:3, :3], columns, atol=1e-6)
    assert np.allclose(geometry.origin, (-10, 20, 30))


def test_slice_distance_comes_from_positions_not_from_slice_thickness(tmp_path):
    write_series(tmp_path, noise(), spacing=(1.25, 1, 1), tags={"SpacingBetweenSlices": 7.0})
    assert read_volume(tmp_path).geometry.spacing[0] == pytest.approx(1.25)


def test_files_in_descending_order_give_the_same_volume(tmp_path):
    array = noise()
    positions = [(0.0, 0.0, -3.0 * k) for k in range(5)]
    write_series(tmp_path, array, positions=positions)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], array[::-1])
    assert volume.geometry.origin[2] == pytest.approx(-12)


def test_positions_rounded_by_the_scanner_still_make_an_even_stack(tmp_path):
    positions = [(0.0, 0.0, round(0.625 * k, 1)) for k in range(30)]
    write_series(tmp_path, noise((30, 4, 4)), positions=positions)
    assert read_volume(tmp_path).geometry.spacing[0] == pytest.approx(0.625, abs=0.002)


def test_a_missing_slice_is_refused_with_its_place(tmp_path):
    files = write_series(tmp_path, noise((8, 4, 4)))
    files[3].unlink()
    with pytest.raises(GeometryError, match=r"1 slice is missing \(1 between 002.dcm and 004.dcm"):
        read_volume(tmp_path)


def test_several_missing_slices_are_counted(tmp_path):
    files = write_series(tmp_path, noise((12, 4, 4)))
    for k in (3, 4, 8):
        files[k].unlink()
    with pytest.raises(GeometryError, match="3 slices are missing"):
        read_volume(tmp_path)


def test_uneven_spacing_is_refused_with_the_gaps(tmp_path):
    z = np.cumsum([0, 2, 2, 2.7, 2, 3.3])
    write_series(tmp_path, noise((6, 4, 4)), positions=[(0.0, 0.0, v) for v in z])
    with pytest.raises(GeometryError, match=r"unevenly spaced \(gaps from 2.00 to 3.30 mm\)"):
        read_volume(tmp_path)


@pytest.mark.parametrize("keyword", ["ImageOrientationPatient", "ImagePositionPatient"])
def test_an_unknown_place_in_the_patient_is_refused(tmp_path, keyword):
    for file in write_series(tmp_path, noise()):
        dataset = pydicom.dcmread(file)
        delattr(dataset, keyword)
        dataset.save_as(file)
    with pytest.raises(GeometryError, match=keyword):
        read_volume(tmp_path)


def test_rows_and_columns_off_a_right_angle_are_refused(tmp_path):
    write_series(tmp_path, noise(), orientation=np.array([[1.0, 0, 0], [0.3, 0.954, 0]]))
    with pytest.raises(GeometryError, match="right angles"):
        read_volume(tmp_path)


def test_a_single_slice_is_refused_without_a_crash(tmp_path):
    file = write_series(tmp_path, noise((1, 4, 4)))[0]
    for path in (tmp_path, file):
        with pytest.raises(InputError, match="single slice"):
            read_volume(path)


# Gantry tilt


def test_a_tilt_of_whole_pixels_is_undone_without_loss(tmp_path):
    box = noise((6, 20, 5), high=500)
    tilted = np.stack([box[k, k : k + 12] for k in range(6)])  # each slice begins a row lower
    positions = [(0.0, 0.5 * k, 2.0 * k) for k in range(6)]
    write_series(tmp_path, tilted, spacing=(2, 0.5, 0.5), positions=positions, modality="CT")
    volume = read_volume(tmp_path)
    inside = np.zeros(box.shape, bool)
    for k in range(6):
        inside[k, k : k + 12] = True
    assert volume.array.shape == (1, 6, 17, 5)
    assert np.array_equal(volume.array[0][inside[:, :17]], box[:, :17][inside[:, :17]])
    assert (volume.array[0][~inside[:, :17]] == tilted.min()).all()
    assert np.allclose(volume.geometry.origin, positions[0])
    assert any("14.0°" in warning for warning in volume.warnings)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_tilted_stack_shows_every_structure_where_it_is_in_the_patient(tmp_path, sign):
    def scene(points):  # smooth, so that linear interpolation is nearly exact
        return 500 * np.sin(points[0] / 20) + 300 * np.cos(points[1] / 25) + 4 * points[2]

    up = np.cross(*OBLIQUE)
    step = 3.0 * up + sign * 1.03 * OBLIQUE[1] + 0.2 * OBLIQUE[0]
    positions = [np.array([5.0, -40, 12]) + step * k for k in range(10)]
    y, x = np.mgrid[0:30, 0:40]
    array = np.stack([
        scene(p[:, None, None] + OBLIQUE[0][:, None, None] * x * 0.8
              + OBLIQUE[1][:, None, None] * y * 0.9)
        for p in positions
    ])  # fmt: skip
    write_series(tmp_path, np.rint(array).astype(np.int16), spacing=(3, 0.9, 0.8),
                 orientation=OBLIQUE, positions=positions)  # fmt: skip
    volume = read_volume(tmp_path)
    matrix = volume.geometry.ijk_to_lps
    assert np.allclose(matrix[:3, 2], 3.0 * up, atol=1e-6)
    k, j, i = np.meshgrid(*map(np.arange, volume.geometry.shape), indexing="ij")
    world = np.tensordot(matrix, np.stack([i, j, k, np.ones_like(i)]), 1)[:3]
    inside = volume.array[0] > volume.array.min()
    assert inside.sum() == pytest.approx(10 * 30 * 40, rel=0.05)
    error = np.abs(volume.array[0] - scene(world))
    assert error[inside].max() < 20  # half a pixel is extrapolated at the border
    inner = binary_erosion(inside, np.ones((1, 3, 3)))
    assert error[inner].max() < 2


def test_slices_beside_each_other_are_refused(tmp_path):
    positions = [(0.0, 9.0 * k, 1.0 * k) for k in range(4)]
    write_series(tmp_path, noise((4, 4, 4)), positions=positions)
    with pytest.raises(GeometryError, match="beside each other"):
        read_volume(tmp_path)


# Several volumes in one series


def write_b_values(folder, tag):
    arrays = [noise(seed=b) for b in range(3)]
    uid = generate_uid()
    for n, (b, array) in enumerate(zip((50, 400, 800), arrays, strict=True)):
        write_series(folder, array, names=[f"{n}-{k}.dcm" for k in range(5)], series_uid=uid,
                     slice_tags=lambda k, b=b: tag(b))  # fmt: skip
    return arrays


def add_private(folder, group, creator, element, values, vr):
    for n, value in enumerate(values):
        for file in folder.glob(f"{n}-*.dcm"):
            dataset = pydicom.dcmread(file)
            dataset.private_block(group, creator, create=True).add_new(element, vr, value)
            dataset.save_as(file)


@pytest.mark.parametrize("way", ["standard", "Siemens", "GE", "Philips", "sequence name"])
def test_b_values_in_one_series_become_volumes(tmp_path, way):
    tag = {
        "standard": lambda b: {"DiffusionBValue": float(b)},
        "sequence name": lambda b: {"SequenceName": f"*ep_b{b}t"},
    }.get(way, lambda b: {})
    arrays = write_b_values(tmp_path, tag)
    if way == "Siemens":
        add_private(tmp_path, 0x19, "SIEMENS MR HEADER", 0x0C, (b"50", b"400 ", b"800 "), "OB")
    elif way == "GE":
        values = [[1_000_000_000 + b, 8, 0, 0] for b in (50, 400, 800)]
        add_private(tmp_path, 0x43, "GEMS_PARM_01", 0x39, values, "IS")
    elif way == "Philips":
        add_private(tmp_path, 0x2001, "Philips Imaging DD 001", 0x03, (50.0, 400.0, 800.0), "FL")
    found = scan(tmp_path)
    assert [s.b_value for s in found] == [50, 400, 800]
    assert [s.part for s in found] == ["b 50", "b 400", "b 800"]
    for series, array in zip(found, arrays, strict=True):
        volume = read_series(series)
        assert np.array_equal(volume.array[0], array)
        assert volume.geometry.spacing[0] == pytest.approx(2)
        assert volume.header["DiffusionBValue"] == series.b_value


def test_a_folder_of_several_volumes_lists_them_and_a_file_says_which(tmp_path):
    arrays = write_b_values(tmp_path, lambda b: {"DiffusionBValue": float(b)})
    with pytest.raises(InputError, match=r"3 image volumes.*test series, b 400.*\(1-0.dcm\)"):
        read_volume(tmp_path)
    assert np.array_equal(read_volume(tmp_path / "1-3.dcm").array[0], arrays[1])


def test_a_slice_missing_in_one_b_value_leaves_the_others_readable(tmp_path):
    arrays = write_b_values(tmp_path, lambda b: {"DiffusionBValue": float(b)})
    (tmp_path / "1-2.dcm").unlink()
    low, middle, high = scan(tmp_path)
    assert np.array_equal(read_series(low).array[0], arrays[0])
    assert np.array_equal(read_series(high).array[0], arrays[2])
    with pytest.raises(GeometryError, match="1 slice is missing"):
        read_series(middle)


@pytest.mark.parametrize(
    "tags",
    [
        lambda n, k: {"TemporalPositionIdentifier": n + 1},
        lambda n, k: {"AcquisitionNumber": n + 1, "TriggerTime": float(97 * k)},
        lambda n, k: {"TriggerTime": float(100 * n)},
        lambda n, k: {"EchoTime": 10.0 + 70 * n, "AcquisitionNumber": k},
        lambda n, k: {"AcquisitionTime": f"1012{n:02d}"},
        lambda n, k: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[n % 2], str(n // 2)]},
        lambda n, k: {"InstanceNumber": 10 * k + n},
    ],
)
def test_repeated_positions_are_told_apart_by_what_differs(tmp_path, tags):
    arrays = [noise(seed=n) for n in range(3)]
    uid = generate_uid()
    for n, array in enumerate(arrays):
        write_series(tmp_path, array, names=[f"{k}-{n}" for k in range(5)], series_uid=uid,
                     slice_tags=lambda k, n=n: tags(n, k))  # fmt: skip
    found = scan(tmp_path)
    assert len(found) == 3
    read = [read_series(series).array[0] for series in found]
    assert all(any(np.array_equal(r, a) for r in read) for a in arrays)
    assert len({series.title for series in found}) == 3


@pytest.mark.parametrize(
    "tags",
    [
        lambda k: {"TriggerTime": 33.0 * k},
        lambda k: {"AcquisitionNumber": k % 2 + 1},
        lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", *(["ADD"] if k > 2 else [])]},
        lambda k: {"EchoTime": 80 + 0.01 * k},
        lambda k: {"DiffusionBValue": float(100 * k)},
    ],
)
def test_what_varies_from_slice_to_slice_does_not_tear_a_volume(tmp_path, tags):
    array = noise()
    write_series(tmp_path, array, slice_tags=tags)
    assert np.array_equal(read_volume(tmp_path).array[0], array)


def test_what_varies_from_slice_to_slice_does_not_hide_a_missing_slice(tmp_path):
    files = write_series(tmp_path, noise((9, 4, 4)), slice_tags=lambda k: {"TriggerTime": 3.0 * k})
    files[5].unlink()
    with pytest.raises(GeometryError, match="missing"):
        read_volume(tmp_path)


def test_an_adc_map_beside_its_trace_images_has_no_b_value(tmp_path):
    uid = generate_uid()
    for name, kind in (("a", "ADC"), ("b", "TRACEW")):
        write_series(
            tmp_path, noise(seed=ord(name)), names=[f"{name}{k}" for k in range(5)],
            series_uid=uid,
            tags={"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", kind], "DiffusionBValue": 800.0},
        )  # fmt: skip
    found = {series.part: series.b_value for series in scan(tmp_path)}
    assert found == {"DIFFUSION/ADC": None, "DIFFUSION/TRACEW": 800}


def test_b_value_zero_in_a_plain_series_means_nothing(tmp_path):
    write_series(tmp_path, noise(), tags={"DiffusionBValue": 0.0})
    series = scan(tmp_path)[0]
    assert series.b_value is None
    assert "DiffusionBValue" not in series.header


def test_orientations_and_matrix_sizes_in_one_series_are_divided(tmp_path):
    uid = generate_uid()
    sagittal = np.array([[0.0, 1, 0], [0, 0, -1]])
    write_series(tmp_path, noise(), series_uid=uid, names=list("abcde"))
    write_series(tmp_path, noise(), series_uid=uid, names=list("fghij"), orientation=sagittal)
    write_series(tmp_path, noise((4, 9, 9)), series_uid=uid, names=list("klmn"))
    found = scan(tmp_path)
    assert sorted((s.orientation, s.shape) for s in found) == [
        ("axial", (4, 9, 9)), ("axial", (5, 6, 7)), ("sagittal", (5, 6, 7)),
    ]  # fmt: skip
    for series in found:
        assert read_series(series).array.shape[1:] == series.shape


def test_two_series_in_two_folders_are_both_found(tmp_path):
    write_series(tmp_path / "x", noise(), tags={"SeriesNumber": 7, "SeriesDescription": "t2_tra"})
    write_series(tmp_path / "y", noise(), tags={"SeriesNumber": 3, "SeriesDescription": "adc"})
    assert [s.title.split(",")[0] for s in scan(tmp_path)] == ["3: adc", "7: t2_tra"]


def test_thousands_of_frames_are_divided_in_reasonable_steps(tmp_path):
    frames = [
        Frame(
            tmp_path / f"{n}-{k}", 0, f"{n}-{k}", (4, 4), np.array([0.0, 0, 2.0 * k]), AXIAL,
            (1, 1), 1, 0, False, n * 60 + k, None,
            {"acquisition": k, "direction": (n, 0.0, 0.0), "file": ""}, {},
        )
        for n in range(40) for k in range(60)
    ]  # fmt: skip
    parts = split_series(frames)
    assert [len(part.frames) for part in parts] == [60] * 40


# Duplicates


def test_an_equal_copy_of_a_slice_is_left_out_with_a_warning(tmp_path):
    array = noise()
    files = write_series(tmp_path, array)
    copy = pydicom.dcmread(files[2])
    copy.SOPInstanceUID = generate_uid()
    copy.save_as(tmp_path / "copy.dcm")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], array)
    assert any("1 repeated slice" in warning for warning in volume.warnings)


def test_contradicting_slices_at_one_place_are_refused(tmp_path):
    files = write_series(tmp_path, noise())
    other = pydicom.dcmread(files[2])
    other.SOPInstanceUID = generate_uid()
    other.PixelData = noise((6, 7), seed=9).tobytes()
    other.save_as(tmp_path / "other.dcm")
    with pytest.raises(InputError, match=r"different images at one place"):
        read_volume(tmp_path)


def test_a_folder_copied_into_itself_is_one_volume(tmp_path):
    array = noise()
    for file in write_series(tmp_path, array):
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], array)
    assert any("5 repeated slice" in warning for warning in volume.warnings)
