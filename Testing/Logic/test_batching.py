"""How many windows go through the network at once."""

import pytest

from MIMSegment.Logic import batching
from MIMSegment.Logic.batching import BatchSize


@pytest.fixture
def windows(monkeypatch):
    """Has a batch do this many windows, of which each takes a second."""
    clock = [0.0]
    monkeypatch.setattr(batching.time, "perf_counter", lambda: clock[0])

    def attempt(batch: BatchSize, count: int) -> None:
        batch.attempt(lambda: clock.__setitem__(0, clock[0] + count), count)

    return attempt


def test_a_batch_that_is_not_faster_is_not_kept(windows):
    batch = BatchSize(limit=8)
    windows(batch, 1)
    assert batch.size == 2
    windows(batch, 2)
    assert batch.size == 1


def test_the_few_windows_at_the_end_of_a_row_do_not_pass_for_a_fast_batch(windows):
    batch = BatchSize(limit=8)
    windows(batch, 1)
    windows(batch, 1)
    assert batch.size == 2
    windows(batch, 2)
    assert batch.size == 1
