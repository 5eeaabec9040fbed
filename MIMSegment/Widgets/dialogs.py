"""The files and folders that the user is asked for; "" when the dialog is cancelled."""

import qt
import slicer
from slicer.i18n import tr as _

from MIMSegment.Logic import panel


def ask_package():
    """The zip file of a model package."""
    caption = _("Model package (zip file)")
    return _file(qt.QFileDialog.getOpenFileName, caption, _("Model package") + " (*.zip)")


def ask_study():
    """A folder with images or DICOM files."""
    return _folder(_("Folder of images or DICOM files"))


def ask_export(kind):
    """Where an `Export` is to be written."""
    caption, pattern, is_folder = panel.export_dialog(kind, _)
    return (
        _folder(caption) if is_folder else _file(qt.QFileDialog.getSaveFileName, caption, pattern)
    )


def _file(ask, caption, pattern):
    answer = ask(slicer.util.mainWindow(), caption, "", pattern)
    return answer[0] if isinstance(answer, tuple) else answer  # PySide6 adds the pattern


def _folder(caption):
    return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), caption)
