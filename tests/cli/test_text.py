import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hellods_cli.build import command
from hellods_cli.text import WIDTH, escape, facts, message, row

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=90), inner, max_size=4),
)


def test_terminal_commands_and_line_breaks_are_spelled_out() -> None:
    assert escape("a\x1b[31m\n\u202eb") == r"a\x1b[31m\n\u202eb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("try more `fit_views`, or `preset='best'`", "try more --fit-views, or --preset best"),
        ("choose `images_per_class=5` or fewer", "choose --images-per-class 5 or fewer"),
        ("x.hello: exists already: `overwrite=True`", "x.hello: exists already: --overwrite"),
        ("name it as `base='local-dir:FOLDER'`", "name it as --base local-dir:FOLDER"),
        ("found 'x', expected `folder: text`", "found 'x', expected `folder: text`"),
        ("a `\x1b`", "a `\\x1b`"),
        ("what another library calls `repo_type`", "what another library calls `repo_type`"),
    ],
)
def test_a_parameter_that_the_library_names_is_an_option_here(text: str, shown: str) -> None:
    assert message(text, command) == shown


def test_words_of_all_languages_stay() -> None:
    assert escape("Äpfel, 林檎, तारा") == "Äpfel, 林檎, तारा"


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.dictionaries(st.text(max_size=90), values, max_size=6))
def test_any_json_object_fits_on_a_few_printable_lines(value: dict[str, object]) -> None:
    lines = row("recipe", facts(value)).split("\n")
    assert len(lines) <= 6
    assert all(line.isprintable() and len(line) <= WIDTH for line in lines), json.dumps(lines)


def test_facts_read_as_words() -> None:
    value = {"flip": True, "scale": ["0.08", "1"], "side": None, "sha256": "0" * 64, "fit": {"images": 12800}}
    assert facts(value) == ["scale 0.08/1", "flip yes", "sha256 000000000000…", "fit.images 12,800"]


def test_an_item_is_not_broken_across_lines() -> None:
    assert row("views", ["x" * 60, "mix none"]).split("\n") == [f"views      {'x' * 60},", f"{'':11}mix none"]
