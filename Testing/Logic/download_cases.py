"""A download of random bytes from the loopback server."""

import hashlib
import os
import random

from MIMSegment.Logic.download import download

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = {"timeout": 1.0, "backoff": 0.01}


def fetch(server, target, *paths, **options):
    urls = [server.url(path) for path in paths or ["/package.zip"]]
    return download(urls, target, SHA256, len(CONTENT), **{**QUICK, **options})


def assert_only_the_file(target):
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == [target.name]
