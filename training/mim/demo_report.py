"""The demo's report: one HTML page that needs nothing beside it, and the figures as JSON."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from mim.figures_file import parse_figures
from mim.statistics import span
from MIMSegment.Logic.files import write_json, write_text

PICTURES = {
    "reconstruction": (
        "pretrain/reconstruction.png",
        "Masked pre-training",
        "A scan, what the mask left of it, and what the network restored.",
    ),
    "curves": (
        "curves.png",
        "Learning curves",
        "Every step is a thin line; the thick line is its running mean.",
    ),
    "slices": (
        "slices.png",
        "The result in Slicer's scene",
        "A subject that no step had seen, segmented by the exported package.",
    ),
    "surfaces": ("surfaces.png", "In 3D", "The same result as surfaces."),
}


@dataclass(frozen=True)
class DemoResult:
    """What a demo found. ``results`` are those of finetune.py; ``unseen_volumes`` maps a structure
    to (found, true) milliliters; ``seconds`` the steps to their times."""

    data: str
    phantom: bool
    unseen: str
    results: dict
    unseen_dice: dict[str, float]
    unseen_volumes: dict[str, tuple[float, float]]
    seconds: dict[str, float]
    recipes: dict[str, dict]


def write_report(result: DemoResult, folder: Path) -> None:
    """Write curves.png, summary.json and report.html into ``folder``."""
    draw_curves(folder / "pretrain/log.jsonl", folder / "finetune/log.jsonl", folder / "curves.png")
    write_json(folder / "summary.json", summary(result))
    write_text(folder / "report.html", page(result, folder))


def summary(result: DemoResult) -> dict:
    """The figures of the report."""
    return {
        "dice_mean": result.results["dice_mean"],
        "dice_ci95": result.results["dice_ci95"],
        "dice_per_class": result.results["dice_per_class"],
        "held_back_subjects": result.results["subjects"],
        "unseen": {
            "case": result.unseen,
            "dice": result.unseen_dice,
            "volumes_ml": result.unseen_volumes,
        },
        "seconds": {**result.seconds, "total": round(sum(result.seconds.values()), 1)},
        "data": result.data,
        "recipe": result.recipes,
    }


def draw_curves(pretrain: Path, finetune: Path, path: Path) -> None:
    """Plot the losses of both runs' log.jsonl."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    titles = ("Pre-training: masked error", "Fine-tuning: Dice + cross-entropy")
    for axis, log, title in zip(axes, (pretrain, finetune), titles, strict=True):
        lines = [parse_figures(line) for line in log.read_text(encoding="utf-8").splitlines()]
        losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        steps, values = zip(*losses, strict=True)
        axis.plot(steps, values, color="#9db7d1", linewidth=0.6)
        axis.plot(steps, _running_mean(values), color="#1f4e79", linewidth=1.8, label="training")
        checks = [(i["step"], i["validation_loss"]) for i in lines if "validation_loss" in i]
        if checks:
            axis.plot(
                *zip(*checks, strict=True),
                "o-",
                color="#c8553d",
                markersize=3,
                label="fixed crops, fixed masks",
            )
            axis.legend(frameon=False)
        axis.set(title=title, xlabel="step", ylabel="loss")
        axis.set_ylim(0, 1.2 * sorted(values)[int(0.95 * (len(values) - 1))])
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _running_mean(values) -> list[float]:
    """Mean of each value and those before it, over a twentieth of the run."""
    width = max(1, len(values) // 20)
    return [fmean(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))]


def page(result: DemoResult, folder: Path) -> str:
    """The HTML page with its pictures inside."""
    r = result.results
    warning = (
        "<p class='warning'>The scans are digital phantoms: the figures say that the path works, "
        "not how well it would do on people.</p>"
        if result.phantom
        else ""
    )
    return _PAGE.format(
        data=html.escape(result.data),
        warning=warning,
        dice=f"{r['dice_mean']:.3f}",
        interval=span(*r["dice_ci95"]),
        subjects=r["subjects"],
        minutes=f"{sum(result.seconds.values()) / 60:.1f}",
        dice_rows=_dice_rows(result),
        volume_rows=_volume_rows(result),
        step_rows=_rows((name, f"{s:.1f} s") for name, s in result.seconds.items()),
        unseen=html.escape(result.unseen),
        pictures="\n".join(_picture(folder, *picture) for picture in PICTURES.values()),
    )


def _dice_rows(result: DemoResult) -> str:
    return _rows(
        (name, f"{item['dice']:.3f}", span(*item["ci95"]))
        for name, item in result.results["dice_per_class"].items()
    )


def _volume_rows(result: DemoResult) -> str:
    return _rows(
        (name, f"{found:.2f}", f"{true:.2f}", _number(result.unseen_dice[name]))
        for name, (found, true) in result.unseen_volumes.items()
    )


def _number(value: float) -> str:
    return "absent" if value != value else f"{value:.3f}"


def _rows(rows) -> str:
    cells = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return "\n".join(f"<tr>{row}</tr>" for row in cells)


def _picture(folder: Path, name: str, title: str, caption: str) -> str:
    data = base64.b64encode((folder / name).read_bytes()).decode()
    return (
        f"<figure><h2>{title}</h2><img alt='{title}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MIM Segment: {data}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1c2733; background: #f4f6f8; margin: 0 }}
main {{ max-width: 1000px; margin: 0 auto; padding: 2rem 1.5rem 4rem }}
h1 {{ font-size: 1.7rem; margin: 0 0 .3rem }} h2 {{ font-size: 1.15rem; margin: 0 0 .6rem }}
section, figure {{ background: #fff; border: 1px solid #dde3ea; border-radius: 8px;
  padding: 1.2rem 1.4rem; margin: 1.2rem 0 }}
.facts {{ display: flex; flex-wrap: wrap; gap: 2.5rem }} .facts strong {{ display: block;
  font-size: 1.9rem; line-height: 1.2 }} .facts span {{ color: #5a6b7b }}
.columns {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr));
  gap: 0 1.2rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: right; padding: .25rem .5rem; border-bottom: 1px solid #e8edf2 }}
th:first-child, td:first-child {{ text-align: left }} th {{ color: #5a6b7b; font-weight: 600 }}
img {{ max-width: 100%; display: block; margin: auto }} figcaption {{ color: #5a6b7b;
  margin-top: .6rem }}
.warning {{ background: #fff4d6; border-left: 4px solid #e0a100; padding: .6rem 1rem }}
footer {{ color: #5a6b7b }}
</style></head><body><main>
<h1>From unlabelled scans to a segmentation in Slicer</h1>
<p>{data}</p>
{warning}
<section class="facts">
<div><strong>{dice}</strong><span>mean Dice, {subjects} held-back subjects</span></div>
<div><strong>{interval}</strong><span>95 % interval over subjects</span></div>
<div><strong>{minutes} min</strong><span>all steps, on this computer</span></div>
</section>
<div class="columns">
<section><h2>Held-back subjects</h2><table>
<tr><th>Structure</th><th>Dice</th><th>95 % interval</th></tr>{dice_rows}</table></section>
<section><h2>The unseen subject, {unseen}</h2><table>
<tr><th>Structure</th><th>found mL</th><th>true mL</th><th>Dice</th></tr>{volume_rows}</table>
</section></div>
{pictures}
<section><h2>Time of every step</h2><table>{step_rows}</table></section>
<footer>Research use only. Not a medical device.</footer>
</main></body></html>
"""
