"""The errors that Logic raises on purpose.

Every message is one sentence or two for the person in front of the screen: what was wrong, with
which file, and what to do about it. Anything else that escapes is a defect of ours.
"""


class MIMSegmentError(Exception):
    """Base of all expected failures; ``str(error)`` can be shown to a user as it is."""


class InputError(MIMSegmentError):
    """An image or series that cannot be read, or must not be used as it is."""


class GeometryError(InputError):
    """An image whose place in the patient is unknown, sheared, or does not fit another image."""


class PackageError(MIMSegmentError):
    """A model package that is incomplete, damaged, or does not fit the input."""


class DeviceError(MIMSegmentError):
    """A device or inference library that is missing or failed."""


class MissingDevice(DeviceError):
    """A device or inference library that this installation does not have at all."""


class OutOfMemory(DeviceError):
    """A device without room for what was asked; the same in smaller pieces may work."""


class NotANumber(DeviceError):
    """A network that returned what is no number, as after an overflow in half precision."""


class OutputError(MIMSegmentError):
    """A result that could not be written; nothing half-written is left behind."""


class FileInUse(OutputError):
    """A file that cannot be replaced while another program holds it open."""


class Cancelled(MIMSegmentError):
    """The user asked to stop."""
