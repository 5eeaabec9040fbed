"""Addresses, redirects and certificates that are not safe are refused before anything is sent."""

import ssl
import subprocess

import pytest

from download_cases import CONTENT, QUICK, SHA256, assert_only_the_file, fetch
from loopback_server import Answer, LoopbackServer, running_proxy
from MIMSegment.Logic.download import download
from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.http_stream import is_allowed, shown


def test_redirects_are_followed_with_the_range(server, target):
    redirect = Answer(status=302, headers={"Location": "/real.zip"})
    server.script["/package.zip"] = [redirect, redirect]
    server.script["/real.zip"] = [Answer(cut_after=1_000_000)]
    fetch(server, target)
    assert_only_the_file(target)
    assert server.requests[-1].range == "bytes=1000000-"


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://192.0.2.1/package.zip"]
)
def test_redirects_to_unsafe_places_are_refused(server, target, place):
    server.script["/package.zip"] = [Answer(status=302, headers={"Location": place})]
    with pytest.raises(PackageError, match=r"redirect|not allowed"):
        fetch(server, target)
    assert not target.exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.zip",
        "file:///etc/passwd",
        "ftp://example.org/a.zip",
        "https:///a.zip",
        "https://user:word@example.org/a.zip",
        "https://example.org:port/a.zip",
        "a.zip",
    ],
)
def test_unsafe_addresses_are_refused_before_any_request(target, url):
    with pytest.raises(PackageError, match="not a safe address") as caught:
        download([url], target, SHA256)
    assert "word" not in str(caught.value)


def test_plain_http_beyond_this_computer_needs_consent():
    assert is_allowed("https://example.org/a") and is_allowed("http://localhost:1/a")
    assert is_allowed("http://[::1]/a") and not is_allowed("http://10.0.0.1/a")
    assert is_allowed("http://10.0.0.1/a", allow_http=True)
    assert not is_allowed("file:///a", allow_http=True)
    assert shown("https://user:word@example.org/a/b.zip?key=1") == "https://example.org/a/b.zip"


def test_no_address_at_all_is_an_error(target):
    with pytest.raises(PackageError, match="no address"):
        download([], target, SHA256)


def test_the_proxy_of_the_environment_is_used_and_exceptions_are_kept(server, target, monkeypatch):
    with running_proxy() as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy)
        fetch(server, target)
        assert asked == [server.url()]
        assert_only_the_file(target)
        target.unlink()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        fetch(server, target)
        assert len(asked) == 1


def test_a_proxy_that_refuses_https_is_named_in_the_reason(target, monkeypatch):
    with LoopbackServer(b"").running() as not_a_proxy:
        monkeypatch.setenv("https_proxy", not_a_proxy.url(""))
        with pytest.raises(PackageError, match=r"Tunnel connection failed.*HTTPS_PROXY"):
            download(["https://example.org/a.zip"], target, SHA256, **QUICK)


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that no system trusts: its file and a server's context."""
    key, path = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "1"]
    command += ["-keyout", key, "-out", path, "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl command to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return path, context


def test_an_untrusted_certificate_is_explained(certificate, target):
    with (
        LoopbackServer(CONTENT, tls=certificate[1]).running() as inspecting,
        pytest.raises(PackageError, match="certificate was not accepted"),
    ):
        fetch(inspecting, target)


def test_https_works_with_a_trusted_certificate_and_never_falls_to_http(
    certificate, server, target, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with LoopbackServer(CONTENT, tls=certificate[1]).running() as secure:
        secure.script["/package.zip"] = [Answer(cut_after=1_000_000)]
        fetch(secure, target)
        assert_only_the_file(target)
        target.unlink()
        place = {"Location": server.url()}
        secure.script["/package.zip"] = [Answer(status=302, headers=place)]
        with pytest.raises(PackageError, match=r"redirects to http.*not safe"):
            fetch(secure, target)
    assert server.requests == []


def test_https_goes_through_a_proxy_that_wants_a_name_and_password(
    certificate, target, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with (
        LoopbackServer(CONTENT, tls=certificate[1]).running() as secure,
        running_proxy("reader:open sesame") as (proxy, asked),
    ):
        monkeypatch.setenv("https_proxy", proxy.replace("//", "//reader:open%20sesame@"))
        fetch(secure, target)
        assert_only_the_file(target)
        assert [f"https://{address}/package.zip" for address in asked] == [secure.url()]
        target.unlink()
        monkeypatch.setenv("https_proxy", proxy.replace("//", "//reader:wrong@"))
        with pytest.raises(
            PackageError, match="the proxy wants a user name and password"
        ) as caught:
            fetch(secure, target)
        assert "wrong" not in str(caught.value) and len(asked) == 2
