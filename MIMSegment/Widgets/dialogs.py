"""The files and folders that the user is asked for; "" when the dialog is cancelled."""

import qt
import slicer
from slicer.i18n import tr as _

from MIMSegment.Logic import panel_exports


def ask_package():
    """The zip file of a model package."""
    caption = _("Model (zip file)")
    return _file(qt.QFileDialog.getOpenFileName, caption, _("Model") + " (*.zip)")


def ask_study():
    """A folder with images or DICOM files."""
    return _folder(_("Folder of images or DICOM files"))


def ask_export(kind):
    """Where an `Export` is to be written."""
    caption, pattern, is_folder = panel_exports.export_dialog(kind, _)
    if is_folder:
        return _folder(caption)
    return panel_exports.with_ending(_file(qt.QFileDialog.getSaveFileName, caption, pattern), kind)


def download(workflow):
    """Download the chosen package behind a dialog with progress and cancel."""
    dialog = qt.QProgressDialog(slicer.util.mainWindow())
    dialog.setWindowModality(qt.Qt.ApplicationModal)
    dialog.setWindowTitle(_("MIM Segment"))
    dialog.setLabelText(_("Downloading {title}").format(title=workflow.state.package.entry.title))
    dialog.setMinimumDuration(0)
    dialog.setMaximum(1000)

    def progress(done, total):  # shown at once, as setValue lets Slicer handle its events
        dialog.setValue(int(999 * done / total) if total else 0)

    try:
        workflow.install(progress, lambda: bool(dialog.property("wasCanceled")))
    finally:
        dialog.close()
        dialog.deleteLater()


def _file(ask, caption, pattern):
    answer = ask(slicer.util.mainWindow(), caption, "", pattern)
    return answer[0] if isinstance(answer, tuple) else answer  # PySide6 adds the pattern


def _folder(caption):
    return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), caption)
