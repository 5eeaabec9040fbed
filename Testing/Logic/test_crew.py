"""Threads that work off calls: all of them, a few at a time, and none after an error."""

import threading

import pytest

from MIMSegment.Logic.crew import Crew
from waiting import wait_until


def test_all_calls_are_done_when_the_crew_is_dismissed():
    done = []
    with Crew(3) as crew:
        for number in range(50):
            crew.submit(done.append, number)
    assert sorted(done) == list(range(50))


def test_calls_run_at_one_time():
    meeting = threading.Barrier(2, timeout=30)
    with Crew(2) as crew:
        crew.submit(meeting.wait)
        crew.submit(meeting.wait)


def test_calls_that_wait_are_few():
    go, begun = threading.Event(), []
    submitted = []

    def submit_many():
        with Crew(1) as crew:
            for number in range(20):
                crew.submit(lambda n=number: (begun.append(n), go.wait(30)))
                submitted.append(number)

    thread = threading.Thread(target=submit_many)
    thread.start()
    wait_until(lambda: begun)
    thread.join(0.2)  # time to submit all of them, if it could
    assert len(submitted) < 10
    go.set()
    thread.join()
    assert begun == list(range(20))


def test_an_error_of_a_call_reaches_the_caller():
    def fail():
        raise MemoryError("no plane left")

    with pytest.raises(MemoryError, match="no plane left"), Crew(2) as crew:
        crew.submit(fail)


def test_after_an_error_of_the_caller_nothing_more_is_begun():
    go, begun = threading.Event(), []
    with pytest.raises(KeyError), Crew(1) as crew:
        crew.submit(lambda: (begun.append(1), go.wait(30)))
        crew.submit(begun.append, 2)
        wait_until(lambda: begun)
        threading.Timer(0.1, go.set).start()
        raise KeyError
    assert begun == [1]
