"""Pictures of a study: they show the table's numbers, and nothing in them covers another thing."""

import io
from itertools import combinations, product

import numpy as np
import pytest
from matplotlib import image, pyplot
from matplotlib.colors import to_rgba
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, BboxTransformTo

from mim.study_plots import draw_curves, draw_scores, plot_curves, plot_scores

ARMS = ("scratch", "random", "contiguous", "slab", "grid", "center", "variable", "simclr",
        "masked_contrastive")  # fmt: skip
STUDIES = {
    "one combination": (ARMS, [{}]),
    "few combinations": (ARMS[:3], [{"finetune.subjects": n} for n in (4, 16, 0)]),
    "many combinations": (
        ARMS[:2],
        [
            {"finetune.subjects": n, "pretrain.mask.ratio": [0.6, 0.9], "both.patch": [size] * 3}
            for n, size in product((4, 16, 0), (16, 32, 64))
        ],
    ),
}


def rows_of(study):
    """Rows as study.json has them; every number in them occurs once."""
    rng, (arms, cells) = np.random.default_rng(0), STUDIES[study]
    rows = []
    for cell, arm in product(cells, arms):
        low, score, high = np.sort(rng.random(3))
        seeds, curves = rng.random(3).tolist(), rng.random((3, 4)).tolist()
        rows.append(
            {"cell": cell, "arm": arm, "metric": "Dice", "score": score, "score_ci95": [low, high],
             "score_by_seed": seeds, "curve_steps": [5, 10, 15, 20], "curves_by_seed": curves,
             "target": 0.5}
        )  # fmt: skip
    return rows


@pytest.fixture(params=STUDIES)
def study(request):
    yield request.param
    pyplot.close("all")


def lines(axes, color, **properties):
    """What was drawn in a color with these properties, as (x, y) pairs."""
    found = (line for line in axes.lines if to_rgba(line.get_color()) == to_rgba(color))
    return [
        np.column_stack(line.get_data())
        for line in found
        if len(line.get_xdata()) and all(pyplot.getp(line, k) == v for k, v in properties.items())
    ]


def test_each_arm_shows_the_score_interval_and_seeds_of_the_table(study):
    rows, (arms, cells) = rows_of(study), STUDIES[study]
    axes = draw_scores(rows).axes[0]
    places = []
    for number, arm in enumerate(arms):
        own = [row for row in rows if row["arm"] == arm]
        dots = lines(axes, f"C{number}", marker="o", fillstyle="full")
        bars = lines(axes, f"C{number}", marker="None")
        rings = lines(axes, f"C{number}", fillstyle="none")
        assert [dot[:, 1].tolist() for dot in dots] == [[row["score"]] for row in own]
        assert [bar[:, 1].tolist() for bar in bars] == [row["score_ci95"] for row in own]
        assert [ring[:, 1].tolist() for ring in rings] == [row["score_by_seed"] for row in own]
        at = [dot[0, 0] for dot in dots]
        assert [bar[:, 0].tolist() for bar in bars] == [[x, x] for x in at]
        assert np.round(at).tolist() == list(range(len(cells)))  # of the right combination
        places.append(at)
        for ring, x in zip(rings, at, strict=True):
            assert (ring[:, 0] - x > 0).all() and (ring[:, 0] - x < 0.4 / len(arms)).all()
    assert (np.diff(places, axis=0) > 0).all()  # in the order of the legend
    written = [label.get_text() for label in axes.get_xticklabels()]
    if len(cells) == 1:
        assert written == list(arms)
        assert axes.get_xticks().tolist() == [at for (at,) in places]
    else:
        assert axes.get_xticks().tolist() == list(range(len(cells)))
        assert all(
            f"subjects {n or 'all'}" in text
            for n, text in zip((cell["finetune.subjects"] for cell in cells), written, strict=True)
        )
        assert legend_colors(axes.figure) == {arm: to_rgba(f"C{i}") for i, arm in enumerate(arms)}


def legend_colors(figure):
    """Color by arm, without the dotted line."""
    legend = figure.legends[0]
    pairs = zip(legend.get_texts(), legend.legend_handles, strict=True)
    return {t.get_text(): to_rgba(h.get_color()) for t, h in pairs if h.get_color() != "gray"}


def test_each_curve_is_the_mean_of_its_seeds_and_its_band_their_range(study):
    rows, (arms, cells) = rows_of(study), STUDIES[study]
    figure = draw_curves(rows)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == len(cells)
    for axes, cell in zip(panels, cells, strict=True):
        own = [row for row in rows if row["cell"] == cell]
        for number, row in enumerate(own):
            (line,) = lines(axes, f"C{number}")
            seeds = np.array(row["curves_by_seed"])
            assert line[:, 0].tolist() == row["curve_steps"]
            assert line[:, 1] == pytest.approx(seeds.mean(0))
        bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
        assert len(bands) == (len(own) if len(own) < 5 else 0)
        for band, row in zip(bands, own, strict=False):
            seeds = np.array(row["curves_by_seed"])
            assert set(band) == {*seeds.min(0), *seeds.max(0)}
    assert legend_colors(figure) == {arm: to_rgba(f"C{i}") for i, arm in enumerate(arms)}


def test_the_baseline_is_dashed_above_the_others_and_steps_are_whole(study):
    rows = [row | {"curve_steps": [1, 2, 3, 4]} for row in rows_of(study)]
    for axes in (axes for axes in draw_curves(rows).axes if axes.get_visible()):
        first, *others = (line for line in axes.lines if line.get_label() in ARMS)
        assert first.get_label() == "scratch" and first.get_linestyle() == "--"
        assert all(o.get_linestyle() == "-" and o.zorder < first.zorder for o in others)
        assert all(step == round(step) for step in axes.get_xticks())


@pytest.mark.parametrize("draw", [draw_scores, draw_curves])
def test_no_text_covers_a_score_or_another_text_or_leaves_the_picture(study, draw):
    figure = draw(rows_of(study))
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    covered = {"legend": outline(figure.legends[0].get_window_extent())}
    for number, axes in enumerate(panels):
        covered |= {f"{text.get_text()} of {number}": corners(text) for text in texts(axes)}
    for (name, first), (other, second) in combinations(covered.items(), 2):
        assert not first.intersects_path(second), (name, other)
    for name, path in covered.items():
        assert not any(path.intersects_path(outline(axes.bbox)) for axes in panels), name
        low, high = path.vertices.min(0), path.vertices.max(0)
        assert (low >= 0).all() and (high <= figure.bbox.max).all(), name


def texts(axes):
    """What is written around a panel; its axes also hold labels of ticks that lie outside of it."""
    low, high = axes.get_ylim()
    beside = [text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
    low, high = axes.get_xlim()
    below = [text for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
    every = (*beside, *below, axes.title, axes.xaxis.label, axes.yaxis.label)
    return [text for text in every if text.get_text() and text.get_visible()]


def outline(box):
    return Path.unit_rectangle().transformed(BboxTransformTo(box))


def corners(text):
    """The rectangle around a text, as it is turned."""
    angle, anchor = text.get_rotation(), text.get_transform().transform(text.get_position())
    if angle % 90 == 0:
        return outline(text.get_window_extent())
    text.set_rotation(0)
    flat = outline(text.get_window_extent())
    text.set_rotation(angle)
    return flat.transformed(Affine2D().rotate_deg_around(*anchor, angle))


def test_the_files_are_these_pictures(tmp_path):
    rows = rows_of("few combinations")
    for draw, write in ((draw_scores, plot_scores), (draw_curves, plot_curves)):
        write(rows, tmp_path / "picture.png")
        expected = io.BytesIO()
        draw(rows).savefig(expected, dpi=120)
        expected.seek(0)
        assert (image.imread(tmp_path / "picture.png") == image.imread(expected)).all()
    assert not plot_curves([{"arm": "scratch"}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    pyplot.close("all")
