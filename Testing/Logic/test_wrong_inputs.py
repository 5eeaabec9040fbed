"""What cannot be segmented as it is: one sentence with a way out, through the whole workflow."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from vtkmodules.util.numpy_support import numpy_to_vtk
from vtkmodules.vtkCommonDataModel import vtkImageData

from flow_cases import start
from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.image_file import write_channels
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.volume import Geometry, Volume, itk, read_volume, write_volume
from MIMSegment.Logic.workflow import Workflow
from MIMSegment.Logic.workflow_ports import Result

CT, PROSTATE = "phantom-abdomen", "phantom-prostate"
SHAPE, SPACING = (40, 64, 64), (5.7, 4.4, 5.6)  # the field of view of the abdominal phantoms


@dataclass
class Case:
    """A workflow on an empty scene, and a folder to put files into."""

    workflow: Workflow
    scene: object
    folder: Path

    def write(self, array, spacing=SPACING, name="CT.nii.gz") -> Path:
        """A file with the channels of ``array`` (c, z, y, x)."""
        path = self.folder / name
        write_channels(Volume(array, Geometry.from_parts(array.shape[1:], spacing)), path)
        return path

    def choose(self, package: str, *paths) -> None:
        self.workflow.choose(package)
        self.workflow.open_study(paths)

    def choose_in_scene(self, package: str) -> None:
        self.workflow.choose(package)
        self.workflow.use_scene()

    def show(self, array) -> None:
        """A CT in the scene, of no modality: a phantom, which needs no "anyway"."""
        geometry = Geometry.from_parts(array.shape[1:], SPACING)
        mrml.add_volume(self.scene, Volume(array, geometry), "CT")

    def take(self, **images) -> None:
        """What a user chooses in the lists: the image whose name has this in it."""
        for name, part in images.items():
            (source,) = [s for s in self.workflow.images if part in s.name]
            self.workflow.assign(name, source.id)

    def sentence(self) -> str:
        """What the user reads after pressing the button, or instead of being able to."""
        self.workflow.run()
        state = self.workflow.state
        assert state.progress is None and state.review is None
        if state.error is not None:
            assert not state.error.report, state.error.report
            return state.error.message
        assert not state.actions["run"]
        return state.actions["run"].reason


@pytest.fixture
def case(tmp_path):
    scene = mrml.new_scene()
    workflow = start(MrmlGateway(scene), tmp_path)
    yield Case(workflow, scene, tmp_path)
    workflow.close()


def body(shape=SHAPE) -> np.ndarray:
    """Hounsfield units (1, z, y, x) of a block of tissue in air."""
    array = np.full((1, *shape), -1000, np.int16)
    inside = np.random.default_rng(0).integers(-50, 150, shape).astype(np.int16)
    array[0, :, 6:-6, 6:-6] = inside[:, 6:-6, 6:-6]
    return array


def another_modality(case):
    case.choose(CT, sample_study(PROSTATE).files["T2w"])


def swapped_sequences(case):
    case.choose(PROSTATE, *sample_study(PROSTATE).files.values())
    case.take(T2w="ADC", ADC="T2w")


def missing_series(case):
    files = sample_study(PROSTATE).files
    case.choose(PROSTATE, files["T2w"], files["ADC"])


def nothing_that_fits(case):
    case.choose(PROSTATE, next(iter(sample_study(CT).files.values())))


def empty_volume(case):
    case.choose(CT, case.write(0 * body()))


def volume_without_image(case):
    case.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    case.choose_in_scene(CT)


def one_slice(case):
    case.choose(CT, case.write(body()[:, :1]))


def flat_image(case):
    path = case.folder / "CT.nrrd"
    itk().WriteImage(itk().GetImageFromArray(body()[0, 0]), str(path))
    case.choose(CT, path)


def one_slice_in_the_scene(case):
    case.show(body()[:, :1])
    case.choose_in_scene(CT)


def huge_spacing(case):
    case.choose(CT, case.write(body()[:, ::4], (60.0, 4.4, 5.6)))


def not_a_number(case):
    array = body().astype(np.float32)
    array[0, 5] = np.nan
    case.choose(CT, case.write(array))


def not_a_number_in_the_scene(case):
    array = body().astype(np.float32)
    array[0, 5] = np.inf
    case.show(array)
    case.choose_in_scene(CT)


def color_image(case):
    array = np.repeat(np.clip(body(), 0, 255).astype(np.uint8), 3, axis=0)
    path = case.folder / "CT.nrrd"
    write_volume(Volume(array, Geometry.from_parts(SHAPE, SPACING)), path)
    case.choose(CT, path)


def color_image_in_the_scene(case):
    image = vtkImageData()
    image.SetDimensions(*reversed(SHAPE))
    colors = np.zeros((*SHAPE, 3), np.uint8)
    image.GetPointData().SetScalars(numpy_to_vtk(colors.reshape(-1, 3), deep=True))
    case.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "CT").SetAndObserveImageData(image)
    case.choose_in_scene(CT)


def time_series(case):
    case.choose(CT, case.write(np.repeat(body(), 5, axis=0)))


def locked_segmentation(case):
    """The result is to go into a segmentation in which the liver is accepted."""
    case.show(body())
    case.choose_in_scene(CT)
    package = case.workflow._package
    labels = Segmentation(np.ones(SHAPE, np.uint8), Geometry.from_parts(SHAPE, SPACING))
    made = Result(labels, package.labels, "Earlier", Provenance.of(package),
                  [("CT", case.workflow.images[0])])  # fmt: skip
    shown = MrmlGateway(case.scene).show_result(made)
    (liver,) = [r.id for r in shown.store.records() if r.name == "liver"]
    Review(shown.store).accept(liver)
    case.workflow.change(target=shown.store.node.GetID())


CASES = [
    (another_modality, r"No image fits the input CT: found PhantomProstate_T2w\.nrrd\. Add it, "
     r"or choose it in the list\."),
    (swapped_sequences, r"The images taken for T2w and ADC are swapped: the first is ADC \(its "
     r"name .*\), the second T2 \(its name .*\); exchange them\."),
    (missing_series, r"No MR image fits the input DWI: found PhantomProstate_T2w.*ADC\.nrrd\. "
     r"Add it, or choose it in the list\."),
    (nothing_that_fits, r"No MR images fit the inputs T2w, ADC and DWI: found PhantomAbdomen_CT"
     r"\.nrrd\. Add them, or choose them in the list\."),
    (empty_volume, r"CT is empty: every voxel of .*CT\.nii\.gz is 0; choose another image\."),
    (volume_without_image, r"No image is loaded; load one, or open a folder\."),
    (one_slice, r".*CT\.nii\.gz is a single slice .*; a 3D image is needed: open the whole "
     r"series\."),
    (flat_image, r".*CT\.nrrd is a 2D image; a 3D image is needed: open the whole series\."),
    (one_slice_in_the_scene, r"CT is a single slice .*; a 3D image is needed: open the whole "
     r"series\."),
    (huge_spacing, r"The voxels of CT are 60 mm long from foot to head, in the training data 2\.73 "
     r"to 3\.19 mm: small structures and borders cannot be seen; take a series with thinner "
     r"slices if there is one\."),
    (not_a_number, r".*CT\.nii\.gz contains NaN or infinite values; replace them, or convert the "
     r"original images again\."),
    (not_a_number_in_the_scene, r"CT contains NaN or infinite values; replace them, .*"),
    (color_image, r".*CT\.nrrd is in color and the model needs gray values; open the original "
     r"images instead\."),
    (color_image_in_the_scene, r"CT is in color and the model needs gray values; open .*"),
    (time_series, r".*CT\.nii\.gz holds 5 images \(a time series, or several sequences\); save the "
     r"one that is meant as a 3D image, and open that\."),
    (locked_segmentation, r"liver in Earlier is accepted and locked; reopen it in the review, or "
     r"choose a new segmentation for the result\."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), CASES, ids=lambda value: getattr(
    value, "__name__", ""))  # fmt: skip
def test_a_wrong_input_is_one_sentence_with_a_way_out(case, make, sentence):
    make(case)
    assert re.fullmatch(sentence, said := case.sentence()), said
    assert case.workflow.results == [] or make is locked_segmentation


def test_an_image_swapped_without_a_name_is_told_by_its_gray_values(case):
    for name, of in {"image a": "ADC", "image b": "T2w", "image c": "DWI"}.items():
        mrml.add_volume(case.scene, read_volume(sample_study(PROSTATE).files[of]), name)
    case.choose_in_scene(PROSTATE)
    case.take(T2w="image a", ADC="image b", DWI="image c")
    case.workflow.check()
    told = [f.message for f in case.workflow.state.findings if "another-input" in f.code]
    assert any("T2w are distributed like those of ADC" in text for text in told), told
    assert all(text.endswith("check that they are not swapped.") for text in told)


def test_a_study_in_which_nothing_was_wrong_runs_afterwards(case):
    color_image(case)
    case.sentence()
    case.workflow.open_study(list(sample_study(CT).files.values()))
    assert case.workflow.state.error is None and case.workflow.state.actions["run"]
