"""A report as text: the cards of its archives, as they are, and the numbers of their students."""

import copy
from pathlib import Path
from typing import Any

import pytest

from hellods.evaluate.evaluate import card_of
from hellods.evaluate.markdown import markdown
from hellods.format.archive import Archive

from .conftest import rewritten


def rows(text: str) -> dict[str, list[str]]:
    """Return the table's cells by the arm that its rows begin with."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    return {cells[0].split("`")[1]: cells for cells in found}


def test_text_beside_the_report_is_the_card_and_a_row_for_each_arm(
    whole: Path, digits_archive: Path, read: dict[str, Any]
) -> None:
    text = (whole / "report.md").read_text()
    with Archive.open(digits_archive) as archive:
        assert text.startswith(archive.read("card").decode().strip())
    (archive_facts,) = read["archives"]
    assert list(rows(text)) == list(archive_facts["arms"])
    for name, arm in archive_facts["arms"].items():
        accuracy, size = arm["accuracy"]["last"], sum(arm["bytes"].values())
        shown = f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}"
        assert rows(text)[name] == [f"`{name}`: {arm['says']}", shown, f"{size:,}"]


def test_text_says_who_learned_how_and_where(whole: Path, read: dict[str, Any]) -> None:
    text = (whole / "report.md").read_text()
    assert "\nA convnet3 learned from each of these. Accuracies are means and deviations of 2 seeds, on 50 " in text
    for fact in (
        "\n- Student: student convnet3, epochs 2, ",
        "\n- Labels also need: the base model hello-convnet\n",
        f"\n- Archive: {read['archives'][0]['content_id']}\n",
        f"\n- Measured: {read['date']}, ",
        f"torch {read['versions']['torch'].split('+')[0]}",
        "\n- Command: hellods evaluate …\n",
    ):
        assert fact in text


def test_text_says_what_a_reader_has_to_know(read: dict[str, Any]) -> None:
    other, single = copy.deepcopy(read), read | {"seeds": [0]}
    other["archives"][0] |= {"same_data": False, "same_teacher": False}
    assert "not made from this data" not in markdown(read, [""])
    assert "not made from this data" in markdown(other, [""])
    assert "not made with this teacher" in markdown(other, [""])
    assert "One seed: " in markdown(single, [""])
    assert "deviations" not in markdown(single, [""])


def test_archives_follow_each_other_each_below_its_card(read: dict[str, Any]) -> None:
    second = copy.deepcopy(read["archives"][0]) | {"name": "the *second*"}
    text = markdown(read | {"archives": [read["archives"][0], second]}, ["# The first\n\nIts card.\n", ""])
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == ["# The first", "## Students", r"# the \*second\*", "## Students"]


def test_card_of_others_cannot_steer_a_terminal(read: dict[str, Any]) -> None:
    text = markdown(read, ["# A card\x1b[2J\u202e\n\nof two lines"])
    assert text.startswith("# A card�[2J�\n\nof two lines\n\n## Students")


@pytest.mark.parametrize("without", [(), ("card",)])
def test_card_is_that_of_the_file_or_none(digits_archive: Path, without: tuple[str, ...], tmp_path: Path) -> None:
    path = rewritten(digits_archive, tmp_path / "one.hello", without=without)
    assert card_of(path).startswith("" if without else "# few")
    assert bool(card_of(path)) is not bool(without)
