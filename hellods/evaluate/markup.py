"""What pages are made of: sections, figures, tables and numbers, as HTML."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from statistics import stdev
from typing import Any, Final

Json = Mapping[str, Any]
Columns = dict[str, Callable[[Json], str]]  # title: what it shows of an arm; both HTML

NONE: Final = "&ndash;"


def section(title: str, *parts: str, level: int = 3) -> str:
    """Return parts of HTML below a title."""
    return f"<section><h{level}>{title}</h{level}>\n{''.join(parts)}</section>\n"


def figure(svg: str, caption: str, kind: str = "") -> str:
    """Return a drawing above its caption."""
    return f'<figure class="{kind}">{svg}<figcaption>{caption}</figcaption></figure>\n'


def tile(name: str, arm: Json, says: str, kind: str = "") -> str:
    """Return an arm's accuracy in large, with what it is below."""
    return f'<div class="{kind}"><span>{code(name)}</span><strong>{last(arm)}</strong><small>{says}</small></div>'


def table_of_arms(arms: Json, columns: Columns, *, says: bool = False, more: Sequence[Sequence[str]] = ()) -> str:
    """Return a table with a row for every arm."""
    names = {
        arm: code(arm) + (f"<br><small>{escape(value['says'])}</small>" if says else "") for arm, value in arms.items()
    }
    rows = [[names[arm], *(cell(value) for cell in columns.values())] for arm, value in arms.items()]
    return table(["", *columns], [*rows, *more])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of HTML cells whose first column names the rows."""
    columns = "".join(f"<th scope=col>{cell}</th>" for cell in head)
    lines = (f"<tr><th scope=row>{row[0]}</th>{''.join(f'<td>{c}</td>' for c in row[1:])}</tr>\n" for row in rows)
    whole = f"<table><thead><tr>{columns}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table>"
    return f"<div class=table tabindex=0>{whole}</div>\n"


def facts(values: Json) -> str:
    """Return names and values of a JSON object, inner names after a dot."""
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in _flat(values))}</dl>"


def _flat(values: Json) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", text) for inner, text in _flat(value))
        elif isinstance(value, list):
            yield key, ", ".join(map(str, value))
        elif isinstance(value, bool):
            yield key, "yes" if value else "no"
        else:
            yield key, "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def code(text: str) -> str:
    """Return a text of others as a name, which is never read as HTML."""
    return f"<code>{escape(text)}</code>"


def last(arm: Json | None) -> str:
    """Return an arm's accuracy after the last epoch."""
    return summary(arm["accuracy"]["last"]) if arm else NONE


def total(arm: Json) -> int:
    """Return the bytes that have to be sent."""
    return sum(arm["bytes"].values())


def summary(value: Json) -> str:
    """Return mean and spread of shares in percent."""
    return percent(value["mean"]) + (f" ± {percent(value['std'])}" if value["std"] is not None else "")


def apart(own: Json, other: Json, signed: bool = False) -> str:
    """Return how far one arm is above or below another, in points, with the spread over pairs of one seed."""
    ours, theirs = (arm["accuracy"]["last"] for arm in (own, other))
    distance = 100 * (ours["mean"] - theirs["mean"])
    pairs = [100 * (a - b) for a, b in zip(ours["values"], theirs["values"], strict=True)]
    spread = f" ± {stdev(pairs):.1f}" if len(pairs) > 1 else ""
    if signed:
        return f"{'&minus;' if distance < 0 else '+'}{abs(distance):.1f}{spread}"
    return f"{abs(distance):.1f}{spread} points {'below' if distance < 0 else 'above'}"


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return NONE if share is None else f"{'&minus;' if share < 0 else ''}{abs(100 * share):.1f}"


def number(value: float | None) -> str:
    """Return a number with three digits at least."""
    if value is None:
        return NONE
    rounded = float(f"{value:.3g}")
    return f"{rounded:.3g}" if rounded < 1000 else f"{value:,.0f}"


def si(value: float | None) -> str:
    """Return a count with three digits and a prefix: 1.2 G."""
    if value is None:
        return NONE
    rounded = float(f"{value:.3g}")
    power = next((power for power in (5, 4, 3, 2, 1) if rounded >= 1000**power), 0)
    return f"{rounded / 1000**power:.3g} {' kMGTP'[power].strip()}"
