"""The pixels of DICOM files: decoded, put in order, turned into grey values.

Native, deflated and run-length encoded pixels are decoded by pydicom itself. All other compressed
pixels go through SimpleITK's GDCM, which is always there, so that the result does not depend on
which optional decoders happen to be installed.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np

from MIMSegment.Logic.dicom_headers import Frame
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.phrases import counted

_PIXEL_TAGS = [
    "SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
]  # fmt: skip
_PHYSICAL = ("CT", "PT")  # modalities whose rescaled values have a unit
_RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
# What GDCM decodes: JPEG (8 and 12 bit, lossy and lossless), JPEG-LS and JPEG 2000.
_THROUGH_GDCM = {_JPEG + n for n in ("50", "51", "57", "70", "80", "81", "90", "91")}


def stored_frames(path: Path, indices: list[int]) -> np.ndarray:
    """The chosen frames of a file as stored, (n, rows, columns), before any rescaling.

    Raises InputError naming the file if pixels are missing, cut short or in an encoding that
    cannot be decoded here.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True, specific_tags=_PIXEL_TAGS)
            frames = _decoded(dataset, path)
        except InputError:
            raise
        except Exception as error:  # decoders raise whatever their library raises
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            raise InputError(
                f"{path} has pixels that cannot be decoded ({reason}); copy the file again or "
                "export it uncompressed."
            ) from None
    if len(frames) <= max(indices):
        raise InputError(
            f"{path} holds {len(frames)} frames, not {max(indices) + 1} as stated; fetch it again."
        )
    return frames[indices]


def read_slots(stacks: list[list[Frame]], source: str) -> tuple[np.ndarray, list[str]]:
    """The stored values (z, y, x), one slice for each place, and what was left out.

    Copies of a slice with equal pixels are dropped; InputError if they differ.
    """
    wanted: dict[Path, list[tuple[int, Frame]]] = defaultdict(list)
    for k, stack in enumerate(stacks):
        for frame in stack:
            wanted[frame.file].append((k, frame))
    array, copies = None, 0
    filled = [None] * len(stacks)
    for file, places in wanted.items():
        slices = stored_frames(file, [frame.index for _, frame in places])
        for (k, frame), values in zip(places, slices, strict=True):
            if values.shape != frame.shape:
                raise InputError(f"{file} has pixels that do not fit its header; fetch it again.")
            if array is None:
                array = np.empty((len(stacks), *frame.shape), values.dtype)
            if not np.can_cast(values.dtype, array.dtype):
                array = array.astype(np.promote_types(array.dtype, values.dtype))
            if filled[k] is None:
                array[k], filled[k] = values, frame
                continue
            first = filled[k]
            if not np.array_equal(array[k], values) or (first.slope, first.intercept) != (
                frame.slope, frame.intercept
            ):  # fmt: skip
                raise InputError(
                    f"{source}: {first.file.name} and {file.name} show different images at one "
                    "place; remove the one that does not belong to the series."
                )
            copies += 1
    if copies:
        were = "was" if copies == 1 else "were"
        return array, [
            f"{source}: {counted(copies, 'repeated slice')} with equal pixels {were} left out."
        ]
    return array, []


def grey_values(
    array: np.ndarray, frames: list[Frame], modality: str
) -> tuple[np.ndarray, list[str]]:
    """Apply RescaleSlope and RescaleIntercept slice by slice, and undo inverted grey.

    Integers stay integers where slopes and intercepts are whole. MONOCHROME1 only says that low
    values are shown white: values with a physical unit (CT, PET) are right as they are.
    """
    factors = np.array([(f.slope, f.intercept) for f in frames])
    low, high = _range(array, factors)
    if (factors == [1.0, 0.0]).all():
        values = array
    elif (factors == np.round(factors)).all() and max(-low, high) < 2**31:
        small = low >= -(2**15) and high < 2**15
        in_place = small and array.itemsize == 2  # a large CT need not be held twice
        values = (
            array.view(np.int16)
            if in_place
            else np.empty(array.shape, np.int16 if small else np.int32)
        )
        for k, (slope, intercept) in enumerate(factors.astype(np.int64)):
            values[k] = array[k].astype(np.int64) * slope + intercept
    else:
        values = array.astype(np.float32)
        for k, (slope, intercept) in enumerate(factors):
            values[k] = array[k] * slope + intercept
    if not any(f.inverted for f in frames) or modality in _PHYSICAL:
        return values, []
    if not all(f.inverted for f in frames):
        raise InputError(
            f"{frames[0].file.parent}: some slices are stored inverted and some are not "
            "(PhotometricInterpretation); export the series again."
        )
    top, bottom = values.max(), values.min()
    return top - (values - bottom), [
        f"{frames[0].file.parent}: the image is stored inverted (MONOCHROME1); its grey values "
        "were turned around."
    ]


def _range(array: np.ndarray, factors: np.ndarray) -> tuple[float, float]:
    """The least and greatest value after rescaling."""
    ends = np.array([[array[k].min(), array[k].max()] for k in range(len(array))], float)
    ends = ends * factors[:, :1] + factors[:, 1:]
    return float(ends.min()), float(ends.max())


def _decoded(dataset, path: Path) -> np.ndarray:
    if "PixelData" not in dataset:
        raise InputError(f"{path} holds no pixels; fetch the series again with its images.")
    syntax = _transfer_syntax(dataset)
    if syntax.is_compressed and not syntax.is_deflated and syntax != _RLE:
        if syntax in _THROUGH_GDCM:
            array = _through_gdcm(dataset)
        elif _pydicom_decodes(syntax):
            array = dataset.pixel_array
        else:
            raise InputError(
                f"{path} is compressed as {syntax.name}, which cannot be decoded here; export the "
                "series uncompressed or as lossless JPEG 2000."
            )
    else:
        array = dataset.pixel_array
    array = array.reshape(-1, dataset.Rows, dataset.Columns)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _transfer_syntax(dataset):
    """The encoding that the file states, or the one it was read with if it has no file meta."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset.file_meta.TransferSyntaxUID


def _pydicom_decodes(syntax) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _through_gdcm(dataset) -> np.ndarray:
    """Decode with SimpleITK, from a file that holds the pixels and nothing else.

    Read from the original file, the values would come rescaled, and by the first frame's factors.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

    from MIMSegment.Logic.volume import itk

    bare = Dataset()
    for tag in _PIXEL_TAGS:
        if tag in dataset:
            bare[tag] = dataset[tag]
    bare.SOPClassUID = SecondaryCaptureImageStorage
    bare.SOPInstanceUID = generate_uid()
    bare.PhotometricInterpretation = "MONOCHROME2"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory(prefix="mimsegment-") as folder:
        name = str(Path(folder) / "pixels.dcm")
        bare.save_as(name, enforce_file_format=True)
        reader = itk().ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(name)
        return itk().GetArrayFromImage(reader.Execute())
