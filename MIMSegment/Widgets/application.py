"""What the panel asks of Slicer's application: scene, DICOM database, Python, user, packages."""

import importlib.util
import os
import shutil
import subprocess
import sys

import slicer
from slicer.i18n import tr as _

RESOURCES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "Resources")
_REQUIREMENTS = os.path.join(RESOURCES, "requirements.txt")


def new_workflow(store=None):
    """The workflow on Slicer's scene, DICOM database, interpreter and user.

    ``store`` is a `PackageStore` in place of the user's own.
    """
    from MIMSegment.Logic.jobs import JobQueue
    from MIMSegment.Logic.offers import Offers
    from MIMSegment.Logic.scene_gateway import MrmlGateway
    from MIMSegment.Logic.store import PackageStore
    from MIMSegment.Logic.workflow import Workflow

    gateway = MrmlGateway(slicer.mrmlScene, _file_of_instance)
    queue = JobQueue(python=_python())
    return Workflow(gateway, queue, Offers(store or PackageStore()), _reviewer())


def runtime_is_missing():
    """Whether the inference library must still be installed into Slicer's Python."""
    packaging = _packaging()
    if packaging is not None:
        return not packaging.pip_check(packaging.load_requirements(_REQUIREMENTS))
    importlib.invalidate_caches()
    return importlib.util.find_spec("onnxruntime") is None


def ensure_runtime():
    """Install the inference library if it is missing, after asking. Raises DeviceError.

    While Slicer tests itself nobody can be asked, and nothing is installed.
    """
    from MIMSegment.Logic.errors import DeviceError

    try:
        _ask_and_install()
    except subprocess.CalledProcessError as error:
        raise DeviceError(
            _(
                "ONNX Runtime, the program part that calculates, could not be installed (pip ended "
                "with code {code}); check the network connection, then press Segment again."
            ).format(code=error.returncode)
        ) from error
    except RuntimeError as error:  # what pip_ensure raises when the user says no
        raise DeviceError(
            _(
                "Nothing was segmented: the program part that calculates, ONNX Runtime, was not "
                "installed. Press Segment to be asked again."
            )
        ) from error


def install_runtime():
    """Install the inference library if it is missing, without asking: for the self test."""
    if runtime_is_missing():
        slicer.util.pip_install(_requirements())


def load_sample(study):
    """Load the images of a `SampleStudy` as Slicer's Sample Data does."""
    for path in study.files.values():
        slicer.util.loadVolume(str(path), {"name": path.stem})


def register_samples():
    """Offer the phantoms that come with the module in Slicer's Sample Data."""
    import SampleData

    from MIMSegment.Logic.samples import sample_studies

    for study in sample_studies():
        names = list(study.files)
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="MIM Segment",
            sampleName=study.title,
            thumbnailFileName=os.path.join(RESOURCES, "Icons", f"{study.id}.png"),
            uris=[study.files[name].as_uri() for name in names],
            fileNames=[study.files[name].name for name in names],
            nodeNames=[study.files[name].stem for name in names],
            checksums=[f"SHA256:{study.checksums[name]}" for name in names],
            loadFiles=[True] * len(names),
            loadFileType=["VolumeFile"] * len(names),
        )


def _ask_and_install():
    packaging = _packaging()
    if packaging is not None:
        requirements = packaging.load_requirements(_REQUIREMENTS)
        packaging.pip_ensure(requirements, requester=_("MIM Segment"))
        return
    if not runtime_is_missing():
        return
    question = _(
        "ONNX Runtime, the program part that calculates (about 28 MB), will be installed into "
        "Slicer's Python."
    )
    if not slicer.util.confirmOkCancelDisplay(question):
        raise RuntimeError("declined")
    slicer.util.pip_install(_requirements())


def _packaging():
    """``slicer.packaging``, which comes with Slicer 5.12; None before."""
    try:
        from slicer import packaging
    except ImportError:
        return None
    return packaging


def _requirements():
    with open(_REQUIREMENTS, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    return [line for line in lines if line and not line.startswith("#")]


def _python():
    """The interpreter for workers; Slicer's own program would start a second Slicer."""
    found = shutil.which("PythonSlicer")
    return found or (sys.executable if "python" in os.path.basename(sys.executable) else "")


def _file_of_instance(uid):
    """The file of a DICOM instance in Slicer's database, "" where there is none."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        return ""
    return database.fileForInstance(uid)


def _reviewer():
    """The user's name, if it is set in Slicer's settings."""
    return slicer.app.applicationLogic().GetUserInformation().GetName() or ""
