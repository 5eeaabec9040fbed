"""Smooth surfaces of segments, built only when somebody wants to see them in 3D."""

from __future__ import annotations

import numpy as np
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.util.vtkConstants import VTK_UNSIGNED_CHAR
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkPolyDataNormals, vtkReverseSense

from MIMSegment.Logic.run_lengths import RunLengths
from MIMSegment.Logic.scene_layers import (
    BINARY_LABELMAP,
    CLOSED_SURFACE,
    image_matrix,
    layers,
    segments_of,
    voxels,
)
from MIMSegment.Logic.scene_segments import SURFACE_PARAMETERS

_SMOOTHING = "0.8"  # hides the steps of 3 mm slices; costs small lesions half of their volume
_VOLUME_TOLERANCE = 0.02  # to which that volume is given back
_MAX_STEPS = 6  # large organs need none, a lesion of 100 voxels two


def segment_surfaces(node) -> dict:
    """Segment ID to vtkPolyData in the node's own RAS millimeters; empty segments have none.

    Each encloses the volume of its voxels to about 2 %. Slicer's converter runs on a copy of each
    segment cut to its box: on the shared labelmap it would go through the whole volume once for
    each segment (104 segments: 20 s instead of 1 s).
    """
    boxes = slicer.vtkSegmentation()
    boxes.SetSourceRepresentationName(BINARY_LABELMAP)
    for key, value in (SURFACE_PARAMETERS | {"Smoothing factor": _SMOOTHING}).items():
        boxes.SetConversionParameter(key, value)
    for labelmap, members in layers(node):
        for segment_id, cropped in _cropped(labelmap, members):
            segment = slicer.vtkSegment()
            segment.SetLabelValue(1)
            segment.AddRepresentation(BINARY_LABELMAP, cropped)
            boxes.AddSegment(segment, segment_id)
    boxes.CreateRepresentation(CLOSED_SURFACE)
    surfaces = {}
    for segment_id in boxes.GetSegmentIDs():
        segment = boxes.GetSegment(segment_id)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        surface = _with_normals(segment.GetRepresentation(CLOSED_SURFACE), labelmap)
        _restore_volume(surface, labelmap)
        surfaces[segment_id] = surface
    return surfaces


def ensure_surfaces(node) -> None:
    """`add_surfaces` where there are none yet; before Slicer's own button makes them, which takes
    the whole image for each segment."""
    if not node.GetSegmentation().ContainsRepresentation(CLOSED_SURFACE):
        add_surfaces(node)


def add_surfaces(node) -> None:
    """Give the node's segments their surfaces, so that Slicer's 3D views show them."""
    segmentation, surfaces = node.GetSegmentation(), segment_surfaces(node)
    modifying = node.StartModify()
    for segment_id, segment in segments_of(node).items():
        segment.AddRepresentation(CLOSED_SURFACE, surfaces.get(segment_id, vtkPolyData()))
    node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
    segmentation.InvokeEvent(slicer.vtkSegmentation.ContainedRepresentationNamesModified)
    node.EndModify(modifying)


def _with_normals(surface, labelmap):
    """The same surface with an outward normal at each point, or every facet would show."""
    normals = vtkPolyDataNormals()
    normals.SetInputData(surface)
    if np.linalg.det(image_matrix(labelmap)) < 0:  # the facets of a left-handed grid face inwards
        outwards = vtkReverseSense()
        outwards.SetInputData(surface)
        normals.SetInputConnection(outwards.GetOutputPort())
    normals.SplittingOff()
    normals.ConsistencyOff()  # all facets face one way already
    normals.Update()
    return normals.GetOutput()


def _restore_volume(surface, labelmap) -> None:
    """Move a closed surface of triangles along its normals until it encloses its voxels' volume."""
    voxel = abs(np.linalg.det(image_matrix(labelmap)))  # mm³
    volume = np.count_nonzero(voxels(labelmap)) * voxel
    longest = voxel ** (1 / 3) / 3  # of a step, in mm: what has collapsed has no usable normals
    points = vtk_to_numpy(surface.GetPoints().GetData())
    normals = vtk_to_numpy(surface.GetPointData().GetNormals())
    triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    for _ in range(_MAX_STEPS):
        first, second, third = (points[corner] - points[0] for corner in triangles.T)
        across = np.cross(second - first, third - first)
        enclosed = np.einsum("ij,ij->", first, across, dtype=np.float64) / 6
        if abs(enclosed - volume) <= _VOLUME_TOLERANCE * volume:
            break
        area = np.linalg.norm(across, axis=1).sum() / 2
        points += normals * np.clip((volume - enclosed) / area, -longest, longest)
    surface.GetPoints().Modified()


def _cropped(labelmap, members):
    """For each segment that is not empty its ID and its box as a binary labelmap of its own."""
    array = voxels(labelmap)
    boxes = RunLengths.encode(array).boxes()
    first = labelmap.GetExtent()[::2]
    for segment_id, value in members:
        box = boxes.get(value)
        if box is None:
            continue
        mask = np.pad(array[box] == value, 1)  # a border of 0, so that the surface is closed
        start = [s.start + f - 1 for s, f in zip(reversed(box), first, strict=True)]
        cropped = slicer.vtkOrientedImageData()
        cropped.CopyDirections(labelmap)
        cropped.SetOrigin(labelmap.GetOrigin())
        cropped.SetSpacing(labelmap.GetSpacing())
        extent = [(a, a + n - 1) for a, n in zip(start, reversed(mask.shape), strict=True)]
        cropped.SetExtent([bound for pair in extent for bound in pair])
        cropped.AllocateScalars(VTK_UNSIGNED_CHAR, 1)
        voxels(cropped)[...] = mask
        yield segment_id, cropped
