"""markdown(): a report as text, for the place where its archives are shared."""

import re
from collections.abc import Iterator, Sequence

from hellods.display.card import lines, plain
from hellods.display.notes import notes
from hellods.display.text import Json, printable, summary, total_bytes


def markdown(report: Json, cards: Sequence[str]) -> str:
    """Return the card of each archive, and below it what students learned.

    Args:
        report: of an evaluation.
        cards: of its archives, in order, Markdown as the files hold it; empty where a file holds none.
    """
    return "\n".join(
        f"{_shown(card) or '# ' + plain(archive['name'])}\n\n{_students(archive, report)}"
        for archive, card in zip(report["archives"], cards, strict=True)
    )


def _shown(card: str) -> str:
    """Return lines that cannot steer a terminal, without empty ones at the ends."""
    return "\n".join(map(printable, card.split("\n"))).strip()


def _students(archive: Json, report: Json) -> str:
    protocol, data = archive["protocol"], report["data"]
    rows = [
        f"| `{name}`: {arm['says']} | {summary(arm['accuracy']['last'])} | {total_bytes(arm):,} |"
        for name, arm in archive["arms"].items()
    ]
    table = "\n".join(["| accuracy in % | last epoch | bytes |", "| --- | ---: | ---: |", *rows])
    several = f"means and deviations of {len(report['seeds'])} seeds, " if len(report["seeds"]) > 1 else ""
    judged = f"on {data['held_out']['images']:,} held-out images of {plain(data['name'])}"
    known = {
        "Protocol": ", ".join(_flat(protocol)),
        "Labels also need": f"the base model {archive['base']['name']}" if archive["base"] else None,
        "Archive": archive["content_id"],
        "Measured": ", ".join([report["date"], report["hardware"], report["precision"], *_flat(report["versions"])]),
        # Where people keep things is nobody else's business.
        "Command": " ".join(re.split(r"[/\\]", word)[-1] for word in report["command"].split(" ")),
    }
    said = lines([*notes(archive, report), *(f"{key}: {plain(value)}" for key, value in known.items() if value)])
    return f"""## Students

A {plain(protocol["student"])} learned from each of these. Accuracies are {several}{judged}.

{table}

{said}
"""


def _flat(values: Json) -> Iterator[str]:
    """Yield name and value of what is set."""
    yield from (f"{name} {value}" for name, value in values.items() if value is not None)
