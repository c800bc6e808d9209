"""A recipe survives its file, and a file that cannot be used is named with the key."""

from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellods.distill.recipe import Recipe
from hellods.distill.toml import read_knobs, to_toml
from hellods.errors import OptionError


@given(
    text=st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="{|"), max_size=9),
    network=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    rate=st.floats(0, 10),
    flip=st.none() | st.booleans(),
    quality=st.none() | st.integers(1, 100),
    stages=st.none() | st.sets(st.integers(1, 12), min_size=1).map(lambda epochs: tuple(sorted(epochs))),
)
def test_recipe_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    network: str,
    rate: float,
    flip: bool | None,
    quality: int | None,
    stages: tuple[int, ...] | None,
) -> None:
    recipe = Recipe(
        template=text + "{}",
        assistant=network,
        fit_learning_rate=rate,
        flip=flip,
        quality=quality,
        side=32,
        teacher_stages=stages,
    )
    file = tmp_path_factory.getbasetemp() / "recipe.toml"
    file.write_text(to_toml(asdict(recipe)), encoding="utf-8")
    assert Recipe(**read_knobs(file)) == recipe


def test_whole_number_is_a_number_too(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("hard_weight = 1  # as the paper\n")
    assert read_knobs(tmp_path / "r.toml") == {"hard_weight": 1.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sied = 32", "unknown key 'sied'; did you mean side?"),
        ("colors = 3", "unknown key 'colors'; a recipe has base, preset, images_per_class, side, "),
        ("base = 3", "base is 3, expected a text"),
        ("[build]\nside = 32", "unknown key 'build'"),
        ("side = '32'", "side is '32', expected 8 to 4096 as an int"),
        ("side = 32.0", "side is 32.0, expected 8 to 4096 as an int"),
        ("side = true", "side is True, expected 8 to 4096 as an int"),
        ("flip = 1", "flip is 1, expected True or False"),
        ("hard_weight = '0.1'", "hard_weight is '0.1', expected 0 to 1000"),
        ("hard_weight = nan", "hard_weight is nan, expected 0 to 1000"),
        ("codec = ['png']", "codec is ('png',), expected one of png, jpeg"),
        ("teacher_stages = 1", "teacher_stages is 1, expected a tuple of ints"),
        ("teacher_stages = [1, 2.0]", "teacher_stages is (1, 2.0), expected a tuple of ints"),
        ("teacher_stages = [2, 1]", "teacher_stages are [2, 1], expected rising epochs, 1 to 12"),
        ("codec = 'gif'", "codec is 'gif', expected one of png, jpeg"),
        ("side = 4", "side is 4, expected 8 to 4096"),
        ("side 32", "not TOML: "),
        ("template = '\xff'", "not TOML: "),
    ],
)
def test_file_that_cannot_be_used_is_named_with_the_key(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(OptionError) as error:
        read_knobs(file)
    assert str(error.value).startswith(f"{file}: {words}")


def test_mark_before_the_text_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("side = 32\n", encoding="utf-8-sig")
    assert read_knobs(tmp_path / "r.toml") == {"side": 32}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_text_in_utf_16_is_read_where_a_mark_says_so(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('\ufefftemplate = "ein Bild von {}, schön"\n', encoding=encoding)
    assert read_knobs(tmp_path / "r.toml") == {"template": "ein Bild von {}, schön"}


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.toml: recipe cannot be read: No such file"):
        read_knobs(tmp_path / "none.toml")


def test_base_model_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('base = "hello-tiny"\nside = 32\n')
    assert read_knobs(tmp_path / "r.toml") == {"base": "hello-tiny", "side": 32}


def test_archive_in_place_of_a_recipe_says_how_to_come_by_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"x\.hello: an archive: give its recipe, as `hellods inspect --recipe"):
        read_knobs(tmp_path / "x.hello")
