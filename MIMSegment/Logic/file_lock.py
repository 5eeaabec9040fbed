"""A lock between processes and threads that the system releases when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from MIMSegment.Logic.errors import Cancelled

_POLL_SECONDS = 0.05
# Some network shares have no locks. One user seldom installs the same package twice at once, so
# going on without one is better than refusing such shares.
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def file_lock(path: Path, cancel: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the lock file ``path``, which is created and stays; wait for another holder.

    Raises Cancelled while waiting, and OSError when the file cannot be made.
    """
    with path.open("a+b") as file:
        while not _try_lock(file):
            if cancel():
                raise Cancelled("Canceled while another installation was running.")
            time.sleep(_POLL_SECONDS)
        # The end of the file's life is the end of the lock.
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno in _NO_LOCKS_HERE
        return True

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _NO_LOCKS_HERE
        return True
