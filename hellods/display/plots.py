"""Plots of a report, each as SVG. Needs matplotlib."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, cycle
from math import floor
from statistics import fmean
from typing import Any, Final, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from hellods.display.drawing import ACCENT, FAINT, GLYPH, INK, MUTED, PAPER, TEXT, canvas, to_svg
from hellods.display.text import Json, summary


def accuracy(name: str, archives: Sequence[Json]) -> Markup:
    """Return bars of every arm's accuracy, with each seed, the spread and the best epoch, grouped by archive."""
    heading = [None] if len(archives) > 1 else []
    rows = [(archive, arm) for archive in archives for arm in [*heading, *archive["arms"]]]
    found = [arm["accuracy"] for archive in archives for arm in archive["arms"].values()]
    top = 100 * max([0.01, *(max(*measured["last"]["values"], measured["best"]["mean"]) for measured in found)])

    def draw(width: int) -> Figure:
        figure, axes = canvas(width, len(rows) * 32 + 48, left=116, bottom=44, right=6)
        for_labels = (width - 122) / (width - 122 - 90)
        axes.set(xlim=(0, top * for_labels), ylim=(len(rows) - 0.4, -0.6), xlabel="accuracy, %", yticks=[])
        axes.set_xticks(
            [tick for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, top) if tick <= 1.05 * top]
        )
        axes.spines["bottom"].set_visible(False)
        axes.grid(axis="x")
        for row, (archive, arm) in enumerate(rows):
            if arm is None:
                axes.text(0, row, _short(archive["file"], width // 11), va="center", weight="bold")
            else:
                _bar(axes, row, arm, archive["arms"][arm]["accuracy"])
                axes.vlines(100 / len(archive["classes"]), row - 0.5, row + 0.5, MUTED, linewidth=1)
        return figure

    return to_svg(name, "Accuracy of every arm", draw)


def _bar(axes: Axes, row: int, arm: str, measured: Json) -> None:
    """Draw an arm: its name, a bar to the mean, a line of the spread, a diamond of the best epoch, a dot a seed."""
    values, best = [100 * value for value in measured["last"]["values"]], 100 * measured["best"]["mean"]
    mean, spread = (100 * (measured["last"][key] or 0) for key in ("mean", "std"))
    axes.annotate(
        arm, (0, row), xytext=(-8, 0), textcoords="offset points", ha="right", va="center", **_ink(arm == "hello")
    )
    axes.barh(row, mean, height=0.44, color=ACCENT if arm == "hello" else FAINT)
    axes.plot([mean - spread, mean + spread], [row, row], color=INK, lw=1.5)
    axes.plot([best], [row - 0.36], "D", ms=4.5, mfc=PAPER, mec=INK, mew=1)
    axes.plot(values, [row + 0.36] * len(values), "o", ms=3.6, mfc=INK, mec=PAPER, mew=0.4)
    right = max(*values, best, mean + spread)
    axes.annotate(summary(measured["last"]), (right, row), xytext=(9, 0), textcoords="offset points", va="center")


class Point(NamedTuple):
    """An accuracy at its bytes, and what its label maker takes for granted beside them."""

    label: str
    bytes: int
    assumed: int  # bytes of public assets
    accuracy: Json  # mean, std
    accent: bool


def against_bytes(name: str, points: Sequence[Point]) -> Markup:
    """Return accuracy against bytes; a hollow mark, joined to its full one, counts the public assets too."""
    sizes = [size for point in points for size in (point.bytes, point.bytes + point.assumed)]
    ticks = LogLocator(subs=(1, 3) if max(sizes) < 300 * min(sizes) else (1,))
    heights = [100 * point.accuracy["mean"] for point in points]
    limits = (max(0, 10 * floor(min(heights) / 10 - 0.5)), max(heights) + 5)

    def draw(width: int) -> Figure:
        figure, axes = canvas(width, 440 if width > 500 else 540, left=30, bottom=50, right=24, top=26)
        axes.set(
            xscale="log",
            xlim=(min(sizes) / 2, 2 * max(sizes)),
            ylim=limits,
            xlabel="bytes to send",
            title="accuracy, %",
        )
        axes.xaxis.set_major_locator(ticks)
        axes.xaxis.set_major_formatter(EngFormatter("B", sep="\N{NO-BREAK SPACE}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid()
        for point in points:
            color, mean = ACCENT if point.accent else INK, 100 * point.accuracy["mean"]
            size, spread = point.bytes, 100 * (point.accuracy["std"] or 0)
            axes.plot([size, size], [mean - spread, mean + spread], color=color, lw=1.3)
            if point.assumed:
                axes.plot([size, size + point.assumed], [mean, mean], ":", color=color, lw=1.2)
                axes.plot([size + point.assumed], [mean], "o", ms=8, mfc=PAPER, mec=color, mew=1.3)
            axes.plot([size], [mean], "o", ms=9, mfc=color, mec=PAPER, mew=0.8)
        _label(axes, points)
        return figure

    return to_svg(name, "Accuracy against bytes", draw)


SHIFTS: Final = [  # from a point to its label: pixels, and the label's share left of there; the better ones first
    *((9, 0, 0.0), (-9, 0, 1.0), (0, 14, 0.5), (0, -14, 0.5)),
    *((7, 11, 0.0), (7, -11, 0.0), (-7, 11, 1.0), (-7, -11, 1.0)),
    *((-12 + 24 * right, up * sign, 1.0 - right) for up in range(18, 120, 6) for sign in (1, -1) for right in (1, 0)),
]


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Write each point's name beside it, where it hides least."""
    taken = []
    for point in points:
        (x, y), (assumed, _) = axes.transData.transform(
            [(size, 100 * point.accuracy["mean"]) for size in (point.bytes, point.bytes + point.assumed)]
        )
        taken += [Bbox.from_extents(x - 6, y - 5, x + 6, y + 5), Bbox.from_extents(x, y - 3, assumed + 5, y + 3)]
    left, bottom, right, top = axes.bbox.extents
    far = 9999
    walls = ((-far, 0, left, far), (right, 0, far, far), (0, -far, far, bottom), (0, top, far, far))
    taken += [Bbox.from_extents(*wall) for wall in walls]
    for point in sorted(points, key=lambda point: -point.bytes):
        text, place = _short(point.label, 24), (point.bytes, 100 * point.accuracy["mean"])
        (x, y), wide = axes.transData.transform(place), GLYPH * len(text)
        boxes = [Bbox.from_bounds(x + dx - wide * share, y + dy - TEXT / 2, wide, TEXT) for dx, dy, share in SHIFTS]
        best = min(range(len(SHIFTS)), key=lambda shift: boxes[shift].count_overlaps(taken))
        taken.append(boxes[best])
        dx, dy, share = SHIFTS[best]
        axes.annotate(
            text,
            place,
            xytext=(dx, dy),
            textcoords="offset points",
            ha={0.0: "left", 0.5: "center", 1.0: "right"}[share],
            va="center",
            arrowprops=_leader(MUTED) if abs(dy) > 14 else None,
            **_ink(point.accent),
        )


MARKS: Final[list[dict[str, Any]]] = [
    {"marker": "o", "ms": 8, "mfc": ACCENT, "mec": PAPER, "mew": 0.8},
    {"marker": "o", "ms": 7, "mfc": PAPER, "mec": INK, "mew": 1.3},
    {"marker": "|", "ms": 11, "mec": MUTED, "mew": 2.2},
]
ENDS: Final = 20  # of more than twice as many classes, so many of the best and of the worst are drawn


def per_class(name: str, classes: Sequence[str], arms: Sequence[Sequence[float]]) -> Markup:
    """Return each class's accuracy under up to three arms, in the order of the first; of many, best and worst."""
    order = sorted(range(len(classes)), key=lambda k: -arms[0][k])
    between = len(order[ENDS:-ENDS])
    rows = [*order[:ENDS], None, *order[-ENDS:]] if between else order

    def draw(width: int) -> Figure:
        names = [f"{between} more" if k is None else _short(classes[k], width // 22) for k in rows]
        left = 20 + round(GLYPH * max(map(len, names)))
        figure, axes = canvas(width, len(rows) * 20 + 48, left=left, bottom=44, right=10)
        axes.set(xlim=(0, max(1, 103 * max(map(max, arms)))), ylim=(len(rows) - 0.4, -0.6), xlabel="accuracy, %")
        axes.spines["bottom"].set_visible(False)
        axes.grid(axis="x")
        axes.set_yticks(range(len(rows)), labels=names)
        for row, k in enumerate(rows):
            if k is not None:
                found = [100 * accuracies[k] for accuracies in arms]
                axes.hlines(row, min(found), max(found), FAINT, linewidth=2.5)
                for accuracy, mark in reversed([*zip(found, MARKS, strict=False)]):
                    axes.plot([accuracy], [row], clip_on=False, **mark)  # at 0 half of it lies outside
        return figure

    return to_svg(name, "Accuracy of every class", draw)


Values = Mapping[int, Sequence[float]]  # by epoch, of every seed


def curves(name: str, what: str, arms: Mapping[str, Values]) -> Markup:
    """Return a measure over the epochs, mean and range of the seeds; a wide range of values on a log axis."""
    found = [value for epochs in arms.values() for values in epochs.values() for value in values]
    last = max(epoch for epochs in arms.values() for epoch in epochs)

    def draw(width: int) -> Figure:
        figure, axes = canvas(width, 340, left=54, bottom=46, right=126, top=28)
        axes.set(title=what, xlabel="epoch")
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if min(found) > 0 and max(found) > 20 * min(found):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(found) < 1000 * min(found) else (1,)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        dashes = cycle(["-", "--", "-.", ":"])
        for arm, epochs in arms.items():
            other = {"color": MUTED, "lw": 1.2, "ls": next(dashes)}
            style: dict[str, Any] = {"color": ACCENT, "lw": 2.4, "zorder": 3} if arm == "hello" else other
            low, high, mean = (list(map(of, epochs.values())) for of in (min, max, fmean))
            axes.fill_between([*epochs], low, high, color=style["color"], alpha=0.2, lw=0, zorder=1.5)
            axes.plot([*epochs], mean, marker="." if len(epochs) == 1 else "", **style)
        axes.autoscale_view()  # else it waits for the drawing, and the names are placed before
        _name_ends(axes, last, {arm: fmean(epochs[max(epochs)]) for arm, epochs in arms.items()})
        return figure

    return to_svg(name, f"{what} by epoch", draw, wide=500)


def _name_ends(axes: Axes, epoch: int, ends: Mapping[str, float]) -> None:
    """Write names right of the axes, at what their lines end with, moved apart where they would touch."""
    apart = TEXT + 2
    ordered = sorted(ends, key=ends.__getitem__)
    # Take away the room that the names below need: what is left must only not fall from name to name.
    free = [axes.transData.transform((0, ends[arm]))[1] - apart * rank for rank, arm in enumerate(ordered)]
    raised, lowered = list(accumulate(free, max)), list(accumulate(reversed(free), min))[::-1]
    low, high = axes.bbox.intervaly
    for rank, arm in enumerate(ordered):
        height = max(low, min((raised[rank] + lowered[rank]) / 2, high - apart * (len(ordered) - 1))) + apart * rank
        axes.annotate(
            arm,
            (epoch, ends[arm]),
            xytext=(axes.bbox.x1 + 14, height),
            textcoords="figure pixels",
            va="center",
            arrowprops=_leader(FAINT),
            **_ink(arm == "hello"),
        )


def _leader(color: str) -> dict[str, Any]:
    """Return the line from a label to its point."""
    return {"arrowstyle": "-", "color": color, "lw": 0.8, "shrinkA": 1, "shrinkB": 4}


def _ink(accent: bool) -> dict[str, Any]:
    return {"color": ACCENT, "weight": "bold"} if accent else {"color": INK}


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
