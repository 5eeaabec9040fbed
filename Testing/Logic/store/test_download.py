"""Downloads over real HTTP from a server on this computer that cuts, stalls, lies and corrupts."""

import hashlib
import itertools
import os
import time

import pytest

from download_cases import CONTENT, QUICK, SHA256, assert_only_the_file, fetch
from loopback_server import Answer, LoopbackServer
from MIMSegment.Logic.download import download
from MIMSegment.Logic.errors import Cancelled, OutputError, PackageError


def test_a_good_server_gives_the_file_and_exact_progress(server, target):
    seen = []
    assert fetch(server, target, progress=lambda *p: seen.append(p)) == target
    assert_only_the_file(target)
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_a_file_that_is_there_already_is_not_fetched_again(server, target):
    fetch(server, target)
    fetch(server, target)
    assert len(server.requests) == 1


def test_a_file_of_other_content_is_replaced(server, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    fetch(server, target)
    assert_only_the_file(target)


def test_a_cut_download_goes_on_where_it_stopped(server, target):
    server.script["/package.zip"] = [Answer(cut_after=1_000_000), Answer(cut_after=500_000)]
    fetch(server, target)
    assert_only_the_file(target)
    assert [r.range for r in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [r.if_range for r in server.requests] == [None, '"v1"', '"v1"']
    assert sum(r.sent for r in server.requests) == len(CONTENT)


def test_a_line_that_is_cut_again_and_again_but_delivers_is_not_given_up(server, target):
    content = CONTENT * 3
    server.content = content
    server.script["/package.zip"] = [Answer(cut_after=1_100_000)] * 8
    digest = hashlib.sha256(content).hexdigest()
    download([server.url()], target, digest, len(content), attempts=2, **QUICK)
    assert target.read_bytes() == content
    assert len(server.requests) == 9


def test_the_next_call_goes_on_where_a_failed_one_stopped(server, target):
    server.script["/package.zip"] = [Answer(cut_after=1_000_000), Answer(status=404)]
    with pytest.raises(PackageError, match=r"1 MB that arrived are kept"):
        fetch(server, target)
    assert not target.exists()
    fetch(server, target)
    assert_only_the_file(target)
    assert server.requests[-1].range == "bytes=1000000-"


def test_a_complete_part_is_only_checked(server, target):
    server.script["/package.zip"] = [Answer(cut_after=1_000_000), Answer(status=404)]
    with pytest.raises(PackageError):
        fetch(server, target)
    target.with_name("package.zip.part").write_bytes(CONTENT)
    fetch(server, target)
    assert_only_the_file(target)
    assert len(server.requests) == 2


def test_the_part_of_another_file_is_not_used(server, target):
    server.script["/package.zip"] = [Answer(cut_after=1_000_000), Answer(status=404)]
    with pytest.raises(PackageError):
        download([server.url()], target, "0" * 64, len(CONTENT), **QUICK)
    fetch(server, target)
    assert_only_the_file(target)
    assert server.requests[-1].range is None


@pytest.mark.parametrize(
    "second",
    [
        Answer(ranges=False),
        Answer(etag='"v2"'),
        Answer(content_range="bytes 0-2999999/3000000"),
        Answer(content_range="nonsense"),
        Answer(status=416),
    ],
    ids=["ranges ignored", "file changed", "other range", "nonsense range", "range refused"],
)
def test_a_server_that_cannot_resume_sends_all_again(server, target, second):
    server.script["/package.zip"] = [Answer(cut_after=700_000), second]
    fetch(server, target)
    assert_only_the_file(target)
    assert server.requests[-1].sent == len(CONTENT)


def test_a_file_changed_behind_a_server_without_if_range_is_noticed(target):
    with LoopbackServer(CONTENT, is_careless=True).running() as careless:
        careless.script["/package.zip"] = [Answer(cut_after=700_000), Answer(etag='"v2"')]
        fetch(careless, target)
    assert_only_the_file(target)
    assert [r.range for r in careless.requests] == [None, "bytes=700000-", None]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'], ids=["none", "weak"])
def test_a_server_that_cannot_vouch_for_its_file_is_resumed_and_the_sum_checked(
    server, target, etag
):
    server.script["/package.zip"] = [Answer(etag=etag, cut_after=700_000), Answer(etag=etag)]
    fetch(server, target)
    assert_only_the_file(target)
    assert [r.range for r in server.requests] == [None, "bytes=700000-"]
    assert server.requests[-1].if_range is None


def test_a_size_that_nobody_tells_is_no_obstacle(server, target):
    server.script["/package.zip"] = [Answer(length=False)]
    seen = []
    download([server.url()], target, SHA256, progress=lambda *p: seen.append(p), **QUICK)
    assert_only_the_file(target)
    assert seen[-1] == (len(CONTENT), None)


def test_a_stall_is_given_up_and_resumed(server, target):
    server.script["/package.zip"] = [Answer(stall_after=400_000)]
    fetch(server, target, timeout=0.4)
    assert_only_the_file(target)
    assert [r.range for r in server.requests] == [None, "bytes=400000-"]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, target):
    server.script["/package.zip"] = [Answer(status=503), Answer(status=500)]
    fetch(server, target)
    assert_only_the_file(target)
    server.script["/gone.zip"] = [Answer(status=404)] * 4
    target.unlink()
    with pytest.raises(PackageError, match="HTTP 404"):
        fetch(server, target, "/gone.zip")
    assert [r.path for r in server.requests].count("/gone.zip") == 1


def test_the_pause_that_a_server_asks_for_is_kept(server, target):
    server.script["/package.zip"] = [Answer(status=503, headers={"Retry-After": "1"})]
    began = time.monotonic()
    fetch(server, target)
    assert time.monotonic() - began >= 1


def test_mirrors_are_tried_in_turn_and_a_part_goes_on_from_another(server, target):
    server.script["/a.zip"] = [Answer(status=404)]
    server.script["/b.zip"] = [Answer(cut_after=2_000_000)] + [Answer(status=503)] * 3
    fetch(server, target, "/a.zip", "/b.zip", "/c.zip", attempts=3)
    assert_only_the_file(target)
    assert server.requests[-1].path == "/c.zip"
    assert server.requests[-1].range == "bytes=2000000-"


def test_a_corrupted_file_is_removed_and_the_next_mirror_tried(server, target):
    damaged = bytearray(CONTENT)
    damaged[1234] ^= 1
    server.script["/bad.zip"] = [Answer(body=bytes(damaged))]
    fetch(server, target, "/bad.zip", "/good.zip")
    assert_only_the_file(target)
    assert [r.path for r in server.requests] == ["/bad.zip", "/good.zip"]


def test_a_part_made_of_pieces_that_do_not_fit_is_fetched_again_in_one(server, target):
    server.script["/bad.zip"] = [Answer(body=bytes(len(CONTENT)), cut_after=900_000)]
    server.script["/bad.zip"] += [Answer(status=404)]
    fetch(server, target, "/bad.zip", "/good.zip")
    assert_only_the_file(target)
    assert [r.range for r in server.requests[-2:]] == ["bytes=900000-", None]


def test_the_final_error_names_every_mirror_with_its_reason_and_a_way_out(server, target):
    damaged = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    server.script["/1.zip"] = [Answer(status=404)]
    server.script["/2.zip"] = [Answer(body=damaged)]
    server.script["/3.zip"] = [Answer(body=b"short")]
    server.script["/4.zip"] = [Answer(body=b"<html>", headers={"Content-Type": "text/html"})]
    server.script["/5.zip"] = [Answer(status=407)]
    server.script["/6.zip"] = [Answer(length=False, body=CONTENT + b"more")]
    server.script["/7.zip"] = [Answer(status=503)] * 9
    paths = [f"/{n}.zip?token=secret" for n in range(1, 8)]
    with pytest.raises(PackageError) as caught:
        fetch(server, target, *paths, attempts=2)
    message = str(caught.value)
    for part in (
        "1.zip: HTTP 404",
        "2.zip: the file it sent is damaged",
        "3.zip: its file has 5 bytes, the right one has 3000000",
        "4.zip: it sent a web page",
        "5.zip: the proxy wants a user name and password",
        "6.zip: it sent more than",
        "7.zip: HTTP 503",
        "HTTPS_PROXY",
        "127.0.0.1",
        "import it from the file",
    ):
        assert part in message
    assert "secret" not in message
    assert os.listdir(target.parent) == []


def test_nothing_listening_is_a_refused_connection(target):
    server = LoopbackServer(b"")
    url = server.url()
    server._http.server_close()
    with pytest.raises(PackageError, match="refused"):
        download([url], target, SHA256, attempts=2, **QUICK)


def test_cancel_keeps_the_part_and_only_the_rest_is_fetched_later(server, target):
    done = [0]
    with pytest.raises(Cancelled):
        fetch(
            server,
            target,
            progress=lambda now, total: done.__setitem__(0, now),
            cancel=lambda: done[0] >= 1_000_000,
        )
    kept = target.with_name("package.zip.part").stat().st_size
    assert 1_000_000 <= kept < len(CONTENT)
    assert not target.exists()
    fetch(server, target)
    assert_only_the_file(target)
    assert server.requests[-1].range == f"bytes={kept}-"
    assert server.requests[-1].sent == len(CONTENT) - kept


@pytest.mark.parametrize(
    "answer", [Answer(stall_after=0), Answer(status=503, headers={"Retry-After": "20"})]
)
def test_cancel_does_not_wait_for_a_stalled_server_or_a_pause(server, target, answer):
    server.script["/package.zip"] = [answer]
    polls = itertools.count()
    with pytest.raises(Cancelled):
        fetch(server, target, timeout=20, cancel=lambda: server.requests and next(polls) > 5)
    assert len(server.requests) == 1, "it is asked again and again within one request"


def test_too_little_space_is_said_before_anything_is_fetched(server, target, monkeypatch):
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OutputError, match=r"needs 3 MB .* only 1 MB free"):
        fetch(server, target)
    assert server.requests == []


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(server, mounted):
    disk = mounted("size=1m")
    target = disk / "package.zip"
    with pytest.raises(OutputError, match=r"package\.zip could not be written: No space left"):
        download([server.url()], target, SHA256, **QUICK)
    assert os.listdir(disk) == []


def test_a_folder_that_cannot_be_made_is_an_error(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        fetch(server, tmp_path / "file" / "package.zip")
