"""The card of an archive: what it says, whatever the archive's names are."""

from dataclasses import replace
from pathlib import Path

import pytest

from hellods.display.card import card
from hellods.format.archive import Archive
from hellods.format.header import Header


@pytest.fixture
def header(digits_archive: Path) -> Header:
    with Archive.open(digits_archive) as archive:
        return archive.header


def test_names_are_read_as_letters(header: Header) -> None:
    made = card(replace(header, name="<b>*x*", classes=("\x1b[2J\n# y", *header.classes[1:])))
    assert made.startswith(r"# \<b\>\*x\*" + "\n")
    assert "\n# y" not in made


@pytest.mark.parametrize(
    ("base", "tower", "said", "loop"),
    [
        ("hello-tiny", None, "a CLIP model that comes with hellods", 'HelloDataset("FILE.hello", temperature=4)'),
        ("RN50/openai", None, "a public CLIP model", 'HelloDataset("FILE.hello", temperature=4)'),
        (
            "given:ours",
            None,
            "a CLIP model that you bring",
            'HelloDataset("FILE.hello", base="local-dir:FOLDER", temperature=4)',
        ),
        ("given:ours", {"width": 8}, "the CLIP model in the file", 'HelloDataset("FILE.hello", temperature=4)'),
    ],
)
def test_card_says_where_the_base_model_comes_from(
    base: str, tower: dict[str, int] | None, said: str, loop: str, header: Header
) -> None:
    projector = {**(header.projector or {}), "base": base, "tower": tower}
    made = card(replace(header, projector=projector))
    assert f"a projector on {said} makes them" in made
    assert f"dataset = {loop}  #" in made


def test_card_has_what_was_measured_each_in_its_unit(header: Header) -> None:
    metrics = {"agreement_with_assistant_on_views": "0.942", "kl_from_assistant_on_views": "0.014", "other": "7"}
    made = card(replace(header, metrics=metrics)).partition("measured by who made the file:")[2]
    assert made.split("\n- ")[1:] == [
        "agreement with the assistant on these: 94.2 %",
        "KL from the assistant on these: 0.014 nats\n",
    ]
