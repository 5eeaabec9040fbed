"""A cache appears whole or not at all: written beside its place, it is moved there at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from MIMSegment.Logic.errors import Cancelled, InputError
from MIMSegment.Logic.file_lock import file_lock
from MIMSegment.Logic.files import make_folder, not_written


def source_of(scans: str | Path) -> str:
    """What cases.json calls the data set that a cache is made from."""
    return str(Path(scans).resolve())


def require_replaceable(cache: Path, source: str) -> None:
    """Raise InputError where ``cache`` holds anything but a cache of ``source``."""
    if not cache.exists() or (cache.is_dir() and not any(cache.iterdir())):
        return
    index = cache / "cases.json"
    if not index.is_file():
        raise InputError(f"{cache} is not empty and not a cache; choose another folder.")
    try:
        former = json.loads(index.read_text(encoding="utf-8")).get("source", "unknown data")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{index} cannot be read ({error}); remove {cache}, or choose another folder."
        ) from None
    if former != source:
        raise InputError(
            f"{cache} is a cache of {former}, not of {source}; remove it if it is not needed any "
            "more, or choose another folder."
        )


@contextlib.contextmanager
def replacing_cache(cache: Path) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of ``cache`` on success.

    Until then ``cache`` stays as it was. What is written lies in ``.NAME.writing`` beside it (where
    it is a link, beside its target); what a killed process left there is removed by the next one.
    Raises InputError when another process writes the same cache, OutputError when nothing can be
    written there.
    """
    cache = cache.resolve()
    if os.path.ismount(cache):
        raise InputError(
            f"{cache} is a mount point, which cannot be replaced; name a folder in it."
        )
    work = cache.with_name(f".{cache.name}.writing")
    with _only_writer(work, cache):
        new, former = work / "new", work / "former"
        _bring_back(former, cache)
        for leftover in (new, former):
            shutil.rmtree(leftover, ignore_errors=True)
        make_folder(new)
        yield new
        try:
            if cache.exists():
                cache.rename(former)
            new.rename(cache)
        except OSError as error:
            _bring_back(former, cache)
            raise not_written(cache, error) from error


@contextlib.contextmanager
def _only_writer(work: Path, cache: Path) -> Iterator[None]:
    """Hold ``work``, a folder that is made, and removed at the end."""
    make_folder(work)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)  # once the lock is released
        try:
            stack.enter_context(file_lock(work / "lock", cancel=lambda: True))
        except Cancelled:
            stack.pop_all()
            raise InputError(
                f"Another process is writing {cache}; wait for it, or name another folder."
            ) from None
        except OSError as error:
            raise not_written(work, error) from error
        yield


def _bring_back(former: Path, cache: Path) -> None:
    """After an end between the two moves, when ``cache`` has left its place to nothing."""
    if former.exists() and not cache.exists():
        former.rename(cache)
