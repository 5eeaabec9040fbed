"""What a loaded network is to the rest of the program, whichever library runs it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import re
import threading
from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from MIMSegment.Logic.errors import (
    Cancelled,
    DeviceError,
    MIMSegmentError,
    MissingDevice,
    OutOfMemory,
    PackageError,
)
from MIMSegment.Logic.phrases import counted

_OUT_OF_MEMORY = re.compile(
    r"out of memory|bad_?alloc|allocate \w*\s?memory|failed to allocate|could not allocate"
    r"|not enough memory|alloc_failed|memoryallocation|E_OUTOFMEMORY|8007000E",
    re.IGNORECASE,
)


PRECISIONS = ("float32", "bfloat16", "float16")


class Session(Protocol):
    """A loaded network.

    Call it with a float32 batch (b, c, z, y, x), or (b, c, y, x) for a 2D network; it returns
    float32 logits. Raises OutOfMemory when a smaller call might work, DeviceError when the device
    failed, PackageError when it has to read its file again and cannot, Cancelled after `terminate`.
    """

    device: str
    """One of `device_report.DEVICES`."""
    precision: str
    """What it calculates in: float32, bfloat16 or float16."""
    description: str
    """Library, device, precision and threads that are really in use, for people."""
    input_shape: tuple[int | str | None, ...]
    """Fixed extents are integers; empty when the file does not say."""
    output_shape: tuple[int | str | None, ...]

    def __call__(self, tile: np.ndarray) -> np.ndarray: ...

    def terminate(self) -> None:
        """Make the running call and every later one raise Cancelled; for another thread."""

    def close(self) -> None:
        """Give its memory back; it is not called any more."""

    def check_channels(self, inputs: int, outputs: int, source: str) -> None:
        """Raise PackageError when the network's channels are not the package's."""


_PLACE_IN_CODE = re.compile(r"Exception from |Check '.*' failed at .*:\d+:?$")


class BaseSession(ABC):
    """Cancellation, the library's errors in our words, and the shapes; `_run` is the library's."""

    def __init__(self, device: str):
        self.device = device
        self.precision = self.description = ""
        self.input_shape: tuple[int | str | None, ...] = ()
        self.output_shape: tuple[int | str | None, ...] = ()
        self._loaded = None  # what the library runs
        self._terminated = threading.Event()

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        try:
            if not self._terminated.is_set():
                return self._run(tile)
        except Exception as error:  # the libraries' own exception types are not public
            if not self._terminated.is_set():
                raise failure(error, self.description, tile.shape) from None
        raise Cancelled("Stopped on request.")

    def terminate(self) -> None:
        self._terminated.set()

    def close(self) -> None:
        self._loaded = None
        return_freed_memory()

    def check_channels(self, inputs: int, outputs: int, source: str) -> None:
        for what, shape, count in (
            ("takes", self.input_shape, inputs),
            ("returns", self.output_shape, outputs),
        ):
            if shape and (
                len(shape) not in (4, 5) or (isinstance(shape[1], int) and shape[1] != count)
            ):
                found = counted(shape[1], "channel") if len(shape) > 1 else "no channels"
                raise PackageError(
                    f"{source}: the network {what} {found}, the metadata says {count}; the package "
                    "is inconsistent: get it again, or export it anew."
                )

    @abstractmethod
    def _run(self, tile: np.ndarray) -> np.ndarray:
        """Logits of a batch, by the library; its own errors may leave it."""


def check_precision(precision: str | None) -> None:
    """Raise DeviceError unless ``precision`` is one of `PRECISIONS`, or None."""
    if precision not in (None, *PRECISIONS):
        raise DeviceError(f"{precision!r} is no precision; choose one of: {', '.join(PRECISIONS)}.")


def failure(error: Exception, what: str, shape: tuple[int, ...] = ()) -> MIMSegmentError:
    """A library's ``error`` while ``what`` was at work on ``shape`` as one of our errors.

    One that is ours already says enough, but for the ``shape`` that there was no memory for.
    """
    if is_out_of_memory(error):
        window = f" for a window of {' x '.join(map(str, shape))}" if shape else ""
        return OutOfMemory(
            f"{what}: not enough memory{window}; use a smaller window or another device."
        )
    if isinstance(error, MIMSegmentError):
        return error
    return DeviceError(f"{what} failed ({reason(error)}); try another device.")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library's error says that there was no memory left; each has its own words."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def return_freed_memory() -> None:
    """Give back to the system what is not used any more: glibc keeps the memory that it took to
    read a file, and that of the last result beside the next one's."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def reason(error: Exception) -> str:
    """The telling line of a native library's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    listed = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    telling = listed or [line for line in lines if not _PLACE_IN_CODE.match(line)] or lines
    if not telling:
        return type(error).__name__
    return telling[0].split("] : ", 1)[-1].split("Status Message: ", 1)[-1].rstrip(".:;")[:300]


def import_library(module: str, title: str, advice: str):
    """The inference library ``module``, called ``title``; raises MissingDevice with the ``advice``
    how to install it, DeviceError when it cannot be loaded."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise MissingDevice(f"{title} is not installed; {advice}.") from None
        cause = reason(error)
    except Exception as error:  # a broken native library raises whatever it likes
        cause = reason(error)
    raise DeviceError(f"{title} is installed but cannot be loaded ({cause}); install it again.")
