"""Pictures of the page in each state, to look at: python Testing/Web/show_page.py FOLDER

Real server, real worker, Chromium (``--browser``, default /usr/bin/chromium) by playwright. Each
picture is taken at each size of `SIZES` and named web_STATE_WIDTH.png. Those in docs/pictures are
from here.
"""

import argparse
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Testing" / "Logic"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Testing" / "Web"))

from PIL import Image

from many_structures import write_many_structures_ct, write_many_structures_package
from page_server import PageServer

ROOT = Path(__file__).resolve().parents[2]
SIZES = ((1440, 900), (1024, 768))
SAMPLES = ROOT / "MIMSegment" / "Resources" / "SampleData"


class Camera:
    """One page, and the folder for its pictures; with ``only`` states of these names."""

    def __init__(self, page, folder: Path, only: list[str]):
        self.page, self._folder, self._only = page, folder, only

    def take(self, name: str) -> None:
        """The page at every size, once its views are drawn anew."""
        if self._only and name not in self._only:
            return
        for width, height in SIZES:
            self.page.set_viewport_size({"width": width, "height": height})
            self._settle()
            path = self._folder / f"web_{name}_{width}.png"
            self.page.screenshot(path=path)
            picture = Image.open(path).convert("RGB")
            picture.quantize(method=Image.Quantize.FASTOCTREE).save(path, optimize=True)  # a third

    def _settle(self) -> None:
        """Until the server has heard all and drawn it; a report has no server."""
        for _ in range(2):
            time.sleep(1.5)
            self.page.evaluate("window.trame?.trigger('change_brush', [0])")

    def press(self, test: str) -> None:
        """Click what has this data-test."""
        self.page.click(f'[data-test="{test}"]')

    def wait(self, test: str, state: str = "visible") -> None:
        """For what has this data-test."""
        self.page.wait_for_selector(f'[data-test="{test}"]', state=state)

    def segment(self) -> None:
        """Press Segment and wait for the list."""
        self.page.wait_for_selector('[data-test="segment"]:enabled')
        self.press("segment")
        self.wait("decided")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("states", nargs="*", help="only these, by name")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        browser = playwright.chromium.launch(
            executable_path=arguments.browser, args=["--no-sandbox"]
        )

        @contextmanager
        def opened(*options: str):
            place = Path(tempfile.mkdtemp(dir=home))
            page = browser.new_page(viewport=dict(zip(("width", "height"), SIZES[0], strict=True)))
            page.set_default_timeout(120_000)
            with PageServer(place, *options) as server:
                page.goto(server.url)
                page.wait_for_selector('[data-test="step-task"]')
                yield Camera(page, arguments.folder, arguments.states)
                page.close()

        with opened() as camera:
            prostate(camera)
        with opened(str(SAMPLES / "brain")) as camera:
            wrong_images(camera)
        with opened(*many_structures(Path(home))) as camera:
            long_list(camera)
        browser.close()


def prostate(camera: Camera) -> None:
    """The whole way, on the sample study of the prostate."""
    camera.take("empty")
    page = camera.page
    page.set_input_files(
        '[data-test="pick-files"]', sorted(map(str, (SAMPLES / "prostate").iterdir()))
    )
    page.wait_for_function("document.body.textContent.includes('3 images')")
    camera.take("opened")
    camera.press("card-phantom-prostate")
    page.wait_for_selector('[data-test="segment"]:enabled')
    camera.take("matched")
    camera.press("segment")
    camera.wait("cancel")
    page.wait_for_function("document.body.textContent.includes('Segmenting, part')")
    camera.take("running")
    camera.wait("decided")
    camera.take("review")
    camera.press("show-3d")
    camera.press("next-place")
    camera.take("doubtful")
    camera.press("accept")
    page.wait_for_function("document.body.textContent.match(/1 of . decided/)")
    camera.press("edit")
    camera.wait("editor")
    draw(page)
    camera.take("editing")
    camera.press("accept")
    for decided in (2, 3):
        page.wait_for_function(f"document.body.textContent.match(/{decided} of . decided/)")
        camera.press("reject" if decided == 2 else "accept")
    camera.wait("all-decided")
    camera.take("decided")
    camera.press("export")
    camera.press("export-report")
    camera.wait("written-report")
    camera.take("export")
    with page.expect_popup() as opened:
        camera.press("open-report")
    report = Camera(opened.value, camera._folder, camera._only)
    report.take("report")
    report.page.close()
    page.keyboard.press("Escape")
    camera.press("help")
    camera.take("keys")


def draw(page) -> None:
    """A stroke in the axial view, at the upper edge of what is shown there."""
    box = page.locator('[data-test="view-Axial"]').bounding_box()
    x, y = box["x"] + 0.45 * box["width"], box["y"] + 0.37 * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(10):
        page.mouse.move(x + 4 * step, y)
        time.sleep(0.05)
    page.mouse.up()


def wrong_images(camera: Camera) -> None:
    """A brain where the prostate is asked for, and a file that is no image."""
    camera.press("card-phantom-prostate")
    time.sleep(3)
    camera.take("missing")
    camera.press("change-task")
    camera.press("card-phantom-abdomen")
    letter = {"name": "letter.nii.gz", "mimeType": "text/plain", "buffer": b"Dear colleague"}
    camera.page.set_input_files('[data-test="pick-files"]', files=[letter])
    camera.wait("error")
    camera.take("error")


def many_structures(folder: Path) -> list[str]:
    """Options of the server for a study with 41 structures, one of which has a long name."""
    name = "Patient_with_a_very_long_study_name_CT_abdomen_and_pelvis_venous_phase_2026-09-28"
    scan = write_many_structures_ct(folder / f"{name}.nii.gz", (30, 256, 256), (6.0, 1.6, 1.6))
    return [str(scan), "--model", str(write_many_structures_package(folder / "package").path)]


def long_list(camera: Camera) -> None:
    """The list of 41 structures."""
    camera.segment()
    camera.take("many")


if __name__ == "__main__":
    main()
