"""A report as text: the cards of its archives, as they are, and the numbers of their students."""

import pytest

from hellods.display.markdown import markdown

from .samples import changed, sample


def test_each_arm_has_a_row() -> None:
    report = sample()
    rows = [line for line in markdown(report, [""]).splitlines() if line.startswith("| `")]
    for row, (name, arm) in zip(rows, report["archives"][0]["arms"].items(), strict=True):
        accuracy, size = arm["accuracy"]["last"], sum(arm["bytes"].values())
        shown = f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}"
        assert row == f"| `{name}`: {arm['says']} | {shown} | {size:,} |"


@pytest.mark.parametrize(
    "fact",
    [
        "\nA convnet3 learned from each of these. Accuracies are means and deviations of 3 seeds, on 10,000 ",
        "\n- Protocol: student convnet3, epochs 300, ",
        "\n- Labels also need: the base model hello-tiny\n",
        f"\n- Archive: {'3e' * 32}\n",
        "\n- Measured: 2026-11-21, AMD EPYC, 2 threads, bf16, hellods 0.1.0, torch 2.9.1, ",
        "\n- Command: hellods evaluate c10.hello ",
    ],
)
def test_text_says_who_learned_how_and_where(fact: str) -> None:
    assert fact in markdown(sample(), [""])


def test_text_says_what_a_reader_has_to_know() -> None:
    other = changed(lambda _, archive: archive.update(same_data=False, same_teacher=False))
    assert "not made from this data" not in markdown(sample(), [""])
    assert "not made from this data" in markdown(other, [""])
    assert "not made with this teacher" in markdown(other, [""])
    assert "One seed: " in markdown(sample(seeds=1), [""])
    assert "deviations" not in markdown(sample(seeds=1), [""])


def test_archives_follow_each_other_each_below_its_card() -> None:
    report = sample()
    report["archives"] += changed(lambda _, archive: archive.update(name="the *second*"))["archives"]
    text = markdown(report, ["# The first\n\nIts card.\n", ""])
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == ["# The first", "## Students", r"# the \*second\*", "## Students"]


def test_card_of_others_cannot_steer_a_terminal() -> None:
    text = markdown(sample(), ["# A card\x1b[2J\u202e\n\nof two lines"])
    assert text.startswith("# A card�[2J�\n\nof two lines\n\n## Students")


def test_command_names_files_without_their_folders() -> None:
    command = "hellods evaluate /home/me/c10.hello --data C:\\Users\\me\\cifar10 --teacher nets/own.py:net --seeds 3"
    text = markdown(sample() | {"command": command}, [""])
    shown = text[text.index("- Command: ") :].splitlines()[0]
    assert shown == "- Command: hellods evaluate c10.hello --data cifar10 --teacher own.py:net --seeds 3"
