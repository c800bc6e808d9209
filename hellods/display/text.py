"""Numbers and names as people read them: plain Unicode, for a page, Markdown and a terminal alike."""

from collections.abc import Mapping
from typing import Any, Final

Json = Mapping[str, Any]

NONE: Final = "\N{EN DASH}"
MINUS: Final = "\N{MINUS SIGN}"


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return NONE if share is None else f"{MINUS if share < 0 else ''}{abs(100 * share):.1f}"


def summary(value: Json) -> str:
    """Return mean and spread of shares in percent."""
    return percent(value["mean"]) + (f" ± {percent(value['std'])}" if value["std"] is not None else "")


def number(value: float | None) -> str:
    """Return a number with three digits at least."""
    if value is None:
        return NONE
    rounded = float(f"{value:.3g}")
    return f"{rounded:.3g}" if rounded < 1000 else thousands(value)


def thousands(value: float) -> str:
    """Return a number without a fraction, with commas."""
    return f"{value:,.0f}"


def si(value: float | None) -> str:
    """Return a count with three digits and a prefix: 1.2 G."""
    if value is None:
        return NONE
    rounded = float(f"{value:.3g}")
    power = next((power for power in (5, 4, 3, 2, 1) if rounded >= 1000**power), 0)
    return f"{rounded / 1000**power:.3g} {' kMGTP'[power].strip()}"


def total_bytes(arm: Json) -> int:
    """Return the bytes that have to be sent for an arm of a report."""
    return sum(arm["bytes"].values())


def printable(text: str) -> str:
    """Return a text in one line that can steer neither browser nor terminal: no control, no change of direction."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
