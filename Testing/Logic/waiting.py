"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable

PATIENCE = 120.0  # seconds, on a computer that does much else


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Ask until ``condition()`` is true; an AssertionError when it never is."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {patience:g} s"
        time.sleep(0.005)
