"""Fixtures for tests in a real browser; without one they are skipped."""

import pytest


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium; each module has its own, as its event loop must not stay behind."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'mimsegment[tests]'"
    )
    from browser_page import CHROMIUM, SWITCHES

    if CHROMIUM is None:
        pytest.skip("no Chromium here; install it: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Where the server keeps reviews."""
    return tmp_path_factory.mktemp("reviews")


@pytest.fixture(scope="module")
def server(output):
    """The page's server, for a whole module."""
    from page_server import PageServer

    with PageServer(output) as running:
        yield running


@pytest.fixture
def page(chromium, server):
    """A new tab, which is closed after the test; no script may have failed in it."""
    from browser_page import BrowserPage

    tab = BrowserPage(chromium, server)
    yield tab
    tab.close()
    assert tab.errors == []
