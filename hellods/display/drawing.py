"""Figures, and their SVG, which takes its font and its colors from the page around it. Needs matplotlib."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Final

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# What the page calls each color, and what it is on light paper: drawn so, then handed to the page by name.
PALETTE: Final = {
    "paper": "#ffffff",
    "ink": "#1a1d21",
    "muted": "#5c6670",
    "faint": "#cfd6dd",
    "line": "#e6e9ed",
    "accent": "#0a66c2",
}
PAPER, INK, MUTED, FAINT, LINE, ACCENT = PALETTE.values()

NARROW: Final = 358  # pixels; the page shows one of the two
WIDE: Final = 1000
TEXT: Final = 13  # pixels
GLYPH: Final = 0.56 * TEXT  # pixels, of a letter in most fonts
STYLE: Final = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a class name is a dollar
    "font.size": TEXT,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.titlecolor": MUTED,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 9,
    "ytick.major.pad": 8,
}
INLINE: Final = {  # what matplotlib writes: what a drawing inside a page has instead
    r' width="[^"]*pt" height="[^"]*pt"': "",
    r"<defs>\s*<style.*?</style>\s*</defs>\s*": "",  # it would style the whole page
    r'<g id="[^"]*"': "<g",  # the same in every drawing
    r'font-family: [^;"]*(; )?': "",
    **{rf"\b(fill|stroke): {color}\b": rf"\1: var(--{name}, {color})" for name, color in PALETTE.items()},
}


def canvas(width: int, height: int, *, left: int, bottom: int, right: int, top: int = 4) -> tuple[Figure, Axes]:
    """Return a figure, and axes in it with such margins, all in pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(box)


def to_svg(name: str, says: str, draw: Callable[[int], Figure], wide: int = WIDE) -> Markup:
    """Return the drawing for wide and for narrow pages; `name` keeps the ids of one page's drawings apart."""
    drawn = []
    for kind, width in (("wide", wide), ("narrow", NARROW)):
        buffer = io.StringIO()
        style = {**STYLE, "svg.hashsalt": f"{name} {kind}"}
        with matplotlib.style.context(["default", style]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser chooses the font
            metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            draw(width).savefig(buffer, format="svg", metadata=metadata, transparent=True)
        _, opening, text = buffer.getvalue().partition("<svg")
        for pattern, replacement in INLINE.items():
            text = re.sub(pattern, replacement, text, flags=re.DOTALL)
        drawn.append(f'{opening} class="{kind}" role="img" aria-label="{escape(says)}"{text}')
    return Markup("".join(drawn))  # matplotlib has escaped the texts in it
