"""card(): what a new archive says to people, as Markdown."""

from collections.abc import Iterable
from typing import Final

from hellods.display.text import Json, percent, printable
from hellods.format.header import Header
from hellods.labels.config import OWN, needs_base

SHOWN: Final = 20  # classes
SPECIAL: Final = "\\`*_{}[]<>|#&~$"  # what Markdown reads as more than a letter
MEASURED: Final = {
    "projector_held_out_accuracy": "accuracy on held-out real images:",
    "agreement_on_held_out_images": "agreement with the teacher there:",
    "agreement_on_views": "agreement with the teacher on views of the synthetic images:",
    "kl_on_views": "KL from the teacher on these:",
    "agreement_with_assistant_on_views": "agreement with the assistant on these:",
    "kl_from_assistant_on_views": "KL from the assistant on these:",
}


def card(header: Header) -> str:
    """Return a README for an archive: what it is, how to train from it, what was measured."""
    images, classes, projector = header.images, header.classes, header.projector or {}
    more = f" and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
    said = {
        "License": header.license,
        "Distilled from": f"{header.source['name']}, {header.source['images']:,} images",
        "Source": header.source.get("url"),
        "Classes": f"{', '.join(classes[:SHOWN])}{more}",
        "Teacher": taught(header.teacher),
        "Assistant": taught(header.teacher["assistant"]) if "assistant" in header.teacher else None,
        "Base model": f"{projector['base'].removeprefix('given:')}, SHA-256 {projector['base_sha256']}",
        "Made by": header.created_by,
    }
    base, brought = origin(projector)
    about = [f"{key}: {plain(value)}" for key, value in said.items() if value]
    metrics = {key: float(header.metrics[key]) for key in MEASURED if key in header.metrics}
    found = [
        f"{MEASURED[key]} {f'{value} nats' if key.startswith('kl') else f'{percent(value)} %'}"
        for key, value in metrics.items()
    ]
    return f"""# {plain(header.name)}

{images.count:,} synthetic images of {images.height} × {images.width} px in {len(classes):,} classes.

Soft labels are not stored: a projector on {base} makes them for every view, when hellods loads the file:

```python
from hellods import HelloDataset

dataset = HelloDataset("FILE.hello"{brought}, temperature=4)  # yields (image, soft label)
# a student learns by torch.nn.functional.cross_entropy(model(images) / dataset.temperature, labels)
```

{lines(about)}

The projector, measured by who made the file:

{lines(found)}
"""


def origin(projector: Json) -> tuple[str, str]:
    """Return whose CLIP model makes the labels, and what a reader must add to open the file with it."""
    if projector.get("tower"):
        return "the CLIP model in the file", ""
    if needs_base(projector):
        return "a CLIP model that you bring", ', base="local-dir:FOLDER"'
    return "a CLIP model that comes with hellods" if projector["base"] in OWN else "a public CLIP model", ""


def taught(facts: Json) -> str:
    """Return a network's name and what it can."""
    return f"{facts['architecture']}, right on {percent(float(facts['held_out_accuracy']))} % of held-out images"


def lines(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def plain(text: str) -> str:
    """Return text as Markdown shows it letter by letter, in one line."""
    return "".join(f"\\{c}" if c in SPECIAL else c for c in printable(text))
