"""The page in a real browser, used as a person uses it: by what stands on the screen."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Locator, expect

from page_server import PageServer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Chromium itself must ask nothing of the network either.
SWITCHES = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
_PATIENCE = 180_000  # ms: nothing is timed here, and the machine may be busy
_WATCH_PROGRESS = """() => {
  window.percents = [];
  new MutationObserver(() => {
    const bar = document.querySelector('[data-test="progress"] [role="progressbar"]');
    const percent = bar?.getAttribute('aria-valuenow');
    if (percent && percent !== window.percents.at(-1)) window.percents.push(percent);
  }).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""


class BrowserPage:
    """One tab. ``requests`` are all addresses that it asked for, ``errors`` what scripts threw."""

    def __init__(self, browser: Browser, server: PageServer, url: str = ""):
        expect.set_options(timeout=_PATIENCE)
        self.context = browser.new_context(
            viewport={"width": 1440, "height": 900}, accept_downloads=True
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(_PATIENCE)
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url or server.url)
        expect(self("page")).to_be_visible()

    def __call__(self, name: str) -> Locator:
        """The element that the page calls ``name``."""
        return self.page.locator(f'[data-test="{name}"]')

    def close(self) -> None:
        self.context.close()

    # Study, task and run

    def open_files(self, *paths: Path) -> None:
        """Choose files in the file dialog."""
        self("pick-files").set_input_files([str(path) for path in paths])

    def open_folder(self, folder: Path) -> None:
        """Choose a folder in the folder dialog."""
        self("pick-folder").set_input_files(str(folder))

    def open_sample(self, sample_id: str) -> None:
        """Open a sample study and wait until its images are read."""
        button = self(f"sample-{sample_id}")
        if not button.is_visible():
            self.page.get_by_text("Sample studies").click()
        button.click()
        self.until_heard()
        self.until_ready()

    def until_heard(self) -> None:
        """Wait until the server has done what was asked so far and this tab shows it."""
        for _ in range(2):  # the answer to the first may come before the state that it made
            self.page.evaluate("() => window.trame.trigger('use_tool', ['crosshair'])")

    def until_ready(self) -> None:
        """Wait until Segment can be pressed."""
        expect(self("segment")).to_be_enabled()

    def segment(self, button: str = "segment") -> None:
        """Press Segment and wait until the run has begun."""
        self(button).click()
        expect(self("progress")).to_be_visible()

    def watch_progress(self) -> None:
        """Note from now on every percentage that is shown."""
        self.page.evaluate(_WATCH_PROGRESS)

    @property
    def percents(self) -> list[float]:
        return [float(value) for value in self.page.evaluate("window.percents")]

    def until_reviewing(self) -> None:
        expect(self("decided")).to_be_visible()

    # Review

    def row(self, name: str) -> Locator:
        """The structure with this name in the list."""
        title = self.page.locator(f'.name[title="{name}"]')
        return self.page.locator(".item").filter(has=title)

    def select(self, name: str) -> Locator:
        """Choose a structure; its row."""
        row = self.row(name)
        row.locator(".line").click()
        expect(row).to_have_attribute("aria-selected", "true")
        return row

    def press(self, row: Locator, name: str) -> None:
        """Press a button of a structure's row."""
        row.locator(f'[data-test="{name}"]').click()

    def drag(self, view: str, across: float = 0.0, down: float = 0.0) -> None:
        """Drag with the left button from the middle of a view; lengths as shares of its size."""
        box = self(f"view-{view}").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + across * box["width"], y + down * box["height"], steps=8)
        mouse.up()

    def slices(self) -> list[str]:
        """Where the slices stand, as the page says it."""
        return self.page.locator(".slice span").all_inner_texts()

    # Export

    def export(self, kind: str, folder: Path) -> Path:
        """Export and download: the file in ``folder``."""
        if not self(f"export-{kind}").is_visible():
            self("export").click()
        self(f"export-{kind}").click()
        link = self(f"written-{kind}").first
        expect(link).to_be_visible()
        with self.page.expect_download() as waiting:
            link.click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def saved_review(self) -> tuple[np.ndarray, dict[str, dict]]:
        """Labels, and records by name, as the server has written them to its disk."""
        folder = Path(self("saved").get_attribute("title"))
        with np.load(folder / "review.npz") as file:
            labels = file["labels"]
        facts = json.loads((folder / "review.json").read_text(encoding="utf-8"))
        return labels, {record["name"]: record for record in facts["records"]}

    def when_saved(self, fits: Callable[[np.ndarray, dict[str, dict]], bool]):
        """The saved review as soon as ``fits(labels, records)``."""
        expect(self("saved")).to_be_visible()
        deadline = time.monotonic() + _PATIENCE / 1000
        while not fits(*(found := self.saved_review())):
            assert time.monotonic() < deadline, found[1]
            self.page.wait_for_timeout(200)
        return found
