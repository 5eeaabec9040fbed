"""How fast is the page, in a real browser on this computer? Prints one JSON line.

    python benchmarks/web.py [--browser /usr/bin/chromium] [--seconds 5] [--runs 20]

Linux; needs Chromium and ``pip install playwright``. Server, worker and browser share the
processor, which draws in software. A CT of 512 × 512 × 60 with 41 structures is segmented by a
real package in a real worker; views have about 512 × 512 pixels. Frames are counted in the
browser, as pictures that have arrived and been decoded.

- ``start_seconds``: from the command to a page that can be used (median of three).
- ``result_seconds``: from the end of the worker to the list of 41 structures and the first slice
  with their colors (median of five).
- ``scroll_fps``, ``paint_fps``: frames of the axial view while the wheel turns, and while a stroke
  is drawn; ``wheel_to_frame_ms`` from one wheel step to its picture (median).
- ``memory_*_mb``: resident memory of the server: page open and empty; with the CT and its result;
  growth over 200 scrolls and over ``--runs`` segmentations of the sample study.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Testing" / "Logic"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Testing" / "Web"))

from many_structures import NAMES, write_many_structures_ct, write_many_structures_package
from page_server import PageServer

SIZE = {"width": 1676, "height": 1115}  # leaves about 512 × 512 for each view
WATCH = (Path(__file__).parent / "web_frames.js").read_text(encoding="utf-8")
AXIAL = '[data-test="view-Axial"]'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--seconds", type=float, default=5.0, help="of scrolling and painting")
    parser.add_argument("--runs", type=int, default=20, help="for the growth of the memory")
    parser.add_argument("--only", choices=("start", "views", "memory"), help="one part")
    arguments = parser.parse_args()
    parts = {"start": start, "views": views, "memory": memory}
    result: dict[str, object] = {}
    with (
        tempfile.TemporaryDirectory(prefix="mimsegment-benchmark-") as folder,
        open_browser(arguments.browser) as browser,
    ):
        for name, measure in parts.items():
            if arguments.only in (None, name):
                result |= measure(Path(folder), browser, arguments)
                print(result, file=sys.stderr, flush=True)
    print(json.dumps(result))


@contextmanager
def open_browser(path: str):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser, url: str):
    """The page once it can be used."""
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(600_000)  # nothing here is timed by it
    page.add_init_script(WATCH)
    page.goto(url)
    page.wait_for_selector('[data-test="step-task"]')
    return page


def start(folder: Path, browser, arguments) -> dict:
    """Three starts; the first may have to read the programs from the disk."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        with PageServer(folder) as server:
            page = open_page(browser, server.url)
            times.append(time.monotonic() - began)
            page.close()
    return {"start_seconds": round(statistics.median(times), 2)}


def views(folder: Path, browser, arguments) -> dict:
    """Result, scrolling and painting on the CT with 41 structures."""
    scan = write_many_structures_ct(folder / "ct.nii.gz")
    package = write_many_structures_package(folder / "package")
    result, times = {}, []
    for run in range(5):
        home = folder / str(run)
        home.mkdir()
        with PageServer(home, str(scan), "--model", str(package.path)) as server:
            page = open_page(browser, server.url)
            pid = server.process.pid
            times.append(_result(page, pid))
            if run < 4:
                page.close()
                continue
            result = _interaction(page, pid, arguments.seconds)
    return {"result_seconds": round(_median(times), 3), **result}


def _interaction(page, pid: int, seconds: float) -> dict:
    """Scrolling and painting, and what they do to the memory."""
    result = {"view_pixels": page.evaluate("mimFrames.size('Axial')")}
    result |= _scroll(page, seconds)
    result |= _paint(page, seconds)
    before = resident_mb(pid)
    result["memory_with_result_mb"] = round(before)
    _turn_wheel(page, 200, 0.05)
    result["memory_growth_200_scrolls_mb"] = round(resident_mb(pid) - before, 1)
    page.close()
    return result


def memory(folder: Path, browser, arguments) -> dict:
    """Memory of an empty page, and growth over many segmentations."""
    with PageServer(folder) as server:
        page = open_page(browser, server.url)
        time.sleep(2)
        pid = server.process.pid
        result = {"memory_idle_mb": round(resident_mb(pid))}
        page.click('[data-test="sample-phantom-prostate"]')
        sizes = []
        for _ in range(arguments.runs):
            _segment(page)
            page.wait_for_selector('[data-test="saved"]')
            time.sleep(2)  # the review has been written as well
            sizes.append(resident_mb(pid))
        half = len(sizes) // 2
        result["memory_after_runs_mb"] = round(sizes[-1])
        result["memory_growth_second_half_of_runs_mb"] = round(sizes[-1] - sizes[half], 1)
        result["memory_growth_runs_mb"] = round(sizes[-1] - sizes[0], 1)
        page.close()
    return result


def _segment(page) -> None:
    """Press Segment and wait for the list."""
    page.wait_for_selector('[data-test="segment"]:enabled')
    page.click('[data-test="segment"]')
    confirm = page.locator('[data-test="segment-again"]')
    if confirm.count():
        confirm.click()
    page.wait_for_selector('[data-test="cancel"]')
    page.wait_for_selector('[data-test="cancel"]', state="detached")
    page.wait_for_selector('[data-test="decided"]')


def _result(page, pid: int) -> float:
    """Seconds from the end of the worker to the picture with the structures."""
    page.wait_for_selector('[data-test="segment"]:enabled')
    time.sleep(1)
    page.evaluate("mimFrames.waitForColors('Axial')")
    before = set(children(pid))
    page.click('[data-test="segment"]')
    worker = _wait(lambda: set(children(pid)) - before).pop()
    _wait(lambda: not is_alive(worker), pause=0.002)
    ended = time.time()
    page.wait_for_function("mimFrames.colored() > 0", polling=50)
    rows = page.locator('[data-test^="row-"]').count()
    if rows != len(NAMES):
        raise SystemExit(f"{rows} structures are listed, not {len(NAMES)}.")
    shown = page.evaluate("Math.max(mimFrames.colored(), mimFrames.listed())") / 1000
    return shown - ended


def _scroll(page, seconds: float) -> dict:
    _hover(page)
    page.evaluate("mimFrames.clear()")
    began = time.monotonic()
    steps = _turn_wheel(page, int(seconds * 30), 1 / 30)
    took = time.monotonic() - began
    frames = page.evaluate("mimFrames.times('Axial').length")
    time.sleep(1)
    waits = []
    for step in range(12):
        page.evaluate("mimFrames.clear()")
        sent = time.time()
        page.mouse.wheel(0, 100 if step % 4 < 2 else -100)
        page.wait_for_function("mimFrames.times('Axial').length", polling=10)
        waits.append(page.evaluate("mimFrames.times('Axial')[0]") - 1000 * sent)
        time.sleep(0.5)
    return {
        "scroll_fps": round(frames / took, 1),
        "wheel_steps_per_second": round(steps / took, 1),
        "wheel_to_frame_ms": round(_median(waits)),
    }


def _turn_wheel(page, steps: int, pause: float) -> int:
    """Turn back and forth over the axial view, one slice a step."""
    _hover(page)
    for step in range(steps):
        page.mouse.wheel(0, 100 if step // 25 % 2 else -100)
        time.sleep(pause)
    return steps


def _paint(page, seconds: float) -> dict:
    page.click('[data-test="edit"]')
    page.wait_for_selector('[data-test="editor"]')
    time.sleep(1)
    box = page.locator(AXIAL).bounding_box()
    middle, radius = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), 120

    def go(angle: float) -> None:
        page.mouse.move(middle[0] + radius * math.cos(angle), middle[1] + radius * math.sin(angle))

    go(0)
    page.mouse.down()
    page.evaluate("mimFrames.clear()")
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        go(1.5 * passed)
        time.sleep(1 / 60)
    frames = page.evaluate("mimFrames.times('Axial').length")
    page.mouse.up()
    _wait(lambda: page.is_enabled('[data-test="undo-stroke"]'))
    page.click('[data-test="finish-edit"]')
    return {"paint_fps": round(frames / passed, 1)}


def _hover(page) -> None:
    box = page.locator(AXIAL).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def _wait(condition, timeout: float = 600, pause: float = 0.02):
    """The first true value of ``condition()``."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(pause)
    return value


def _median(values) -> float:
    return statistics.median(values)


def children(pid: int) -> list[int]:
    """The child processes of all threads of ``pid``."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def resident_mb(pid: int) -> float:
    """Resident memory of one process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


if __name__ == "__main__":
    main()
