"""Nobody without the token gets anything, and nothing but studies gets in."""

import http.client
import json
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")

from MIMSegment.Logic.errors import InputError
from mimsegment_web.address import AccessError, check_host
from mimsegment_web.uploads import safe_name
from page_server import PageServer
from process_tree import descendants, until_all_end


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with PageServer(tmp_path_factory.mktemp("reviews"), "--upload-limit", "0.001") as running:
        yield running


def ask(server, path, method="GET", body=None, cookie=None, **headers):
    """Status, headers and body of one request; header names with _ for -."""
    connection = http.client.HTTPConnection(urlsplit(server.base).netloc, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if cookie:
        sent["Cookie"] = cookie
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


@pytest.fixture(scope="module")
def cookie(server):
    status, headers, _ = ask(server, "/" + server.url.removeprefix(server.base))
    assert status == 302 and headers["Location"] == "/index.html"
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]
    return headers["Set-Cookie"].partition(";")[0]


@pytest.mark.parametrize("path", ["/", "/index.html", "/mim_page/page.js", "/download/1/x.html"])
def test_without_the_token_every_address_is_forbidden(server, path):
    assert ask(server, path)[0] == 403
    assert ask(server, path, cookie="mimsegment_1=guess")[0] == 403


def test_a_wrong_token_is_forbidden(server):
    assert ask(server, "/?token=guess")[0] == 403


WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_the_websocket_opens_for_the_own_page_only(server, cookie):
    assert ask(server, "/ws", **WEBSOCKET)[0] == 403
    foreign = {"Origin": "http://evil.example"}
    assert ask(server, "/ws", cookie=cookie, **WEBSOCKET, **foreign)[0] == 403
    connection = http.client.HTTPConnection(urlsplit(server.base).netloc, timeout=20)
    headers = {name.replace("_", "-"): value for name, value in WEBSOCKET.items()}
    connection.request("GET", "/ws", headers={**headers, "Cookie": cookie})
    assert connection.getresponse().status == 101
    connection.close()


def test_another_name_for_this_computer_is_forbidden(server, cookie):
    assert ask(server, "/index.html", cookie=cookie)[0] == 200
    assert ask(server, "/index.html", cookie=cookie, Host="rebound.example")[0] == 403


def test_the_browser_is_told_to_load_nothing_from_elsewhere(server, cookie):
    headers = ask(server, "/index.html", cookie=cookie)[1]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "http:" not in policy and "*" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/mim_page/../access.py",
        "/mim_page/%2e%2e/%2e%2e/access.py",
        "/mim_icons/..%2f..%2f..%2fetc/passwd",
        "/download/1/x.html",
        "/download/..%2f..%2fetc/passwd",
    ],
)
def test_static_files_end_at_their_folder(server, cookie, path):
    assert ask(server, path, cookie=cookie)[0] in (403, 404)


def begin(server, cookie, files=1, size=10):
    body = json.dumps({"files": files, "bytes": size})
    status, _, answer = ask(server, "/upload/begin", "POST", body, cookie)
    return status, json.loads(answer)


def test_an_upload_cannot_leave_its_folder(server, cookie):
    identifier = begin(server, cookie)[1]["id"]
    for name in ("../x", "a/../../x", "..", "/etc/x", ""):
        url = f"/upload/{identifier}?name={name}"
        assert ask(server, url, "PUT", b"x", cookie)[0] == 422
    assert ask(server, "/upload/ffff?name=x", "PUT", b"x", cookie)[0] == 404
    assert ask(server, f"/upload/{identifier}", "DELETE", cookie=cookie)[0] == 200


def test_too_large_an_upload_is_refused_before_and_while_it_is_sent(server, cookie):
    status, answer = begin(server, cookie, size=2_000_000)
    assert status == 422 and "--upload-limit" in answer["error"]
    identifier = begin(server, cookie, size=10)[1]["id"]
    assert ask(server, f"/upload/{identifier}?name=x", "PUT", b"x" * 11, cookie)[0] == 413


def test_odd_file_names_become_plain_ones():
    assert str(safe_name("St. Élan/IM:0001?.dcm")) == "St. Élan/IM_0001_.dcm"
    with pytest.raises(InputError):
        safe_name("a/../b")


def test_another_address_is_listened_on_only_when_asked_for_twice():
    assert check_host("127.0.0.1", False) is None
    assert check_host("localhost", False) is None
    with pytest.raises(AccessError, match="--open-to-network"):
        check_host("0.0.0.0", False)
    assert "unencrypted" in check_host("0.0.0.0", True)


LISTENING = "0A"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_listens_on_this_computer_only(server):
    port = f"{urlsplit(server.base).port:04X}"
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    bound = [s[1] for s in sockets if s[3] == LISTENING and s[1].endswith(f":{port}")]
    assert bound == [f"0100007F:{port}"]


def test_an_address_that_others_reach_ends_the_command_before_it_listens(tmp_path, capsys):
    from MIMSegment.Logic.cli import main

    assert main(["web", "--no-browser", "--host", "0.0.0.0", "--output", str(tmp_path)]) == 2
    assert "--open-to-network" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_images_are_read_every_end_is_without_an_error_or_a_child(tmp_path, number):
    from MIMSegment.Logic.samples import sample_study

    sample = sample_study("phantom-prostate")
    with PageServer(tmp_path, str(sample.folder), "-m", sample.package) as running:
        before = descendants(running.process.pid)
        assert running.stop(number) == 0
        said = running.process.stdout.read()
        assert said.endswith("Stopped.\n") and "Traceback" not in said  # there is no review
        until_all_end(before)
