"""Memory that is not enough: a sentence with the ways out, instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from MIMSegment.Logic.errors import MIMSegmentError

# What torch says of the host's memory, for which it has no error of its own.
_HOST = "DefaultCPUAllocator"


class MemoryFullError(MIMSegmentError):
    """A run that needs more memory than there is."""


@contextmanager
def memory_told(device: torch.device) -> Iterator[None]:
    """Within it a full memory, of ``device`` or of the host, is a MemoryFullError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        host = isinstance(error, MemoryError) or _HOST in str(error)
        if not host and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise MemoryFullError(
            f"The memory of {'this computer' if host else device} is not enough. With memory_gib=0 "
            "the images stay on the disk, also of a run that goes on with --resume. Else begin "
            "another run with loop.accumulate=2 or more, which computes parts of a batch one after "
            "the other, a smaller loop.batch, or a smaller patch."
        ) from error
