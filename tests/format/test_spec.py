"""The text, its vectors, the second reader and hellods say the same."""

import io
import random
import re
from pathlib import Path

import pytest
import reference_reader as reference

from hellods.errors import HelloError
from hellods.format.archive import Archive

from .test_hostile import CODECS, mutated, resealed
from .test_hostile import valid as whole
from .test_rules import SPEC
from .vectors import VECTORS, broken, valid, written

RUNS = 2000


def files(folder: str) -> list[Path]:
    return sorted((VECTORS / folder).glob("*.hello"))


def fault(data: bytes) -> str | None:
    """Return why hellods refuses a file; None: it does not."""
    try:
        Archive.open(io.BytesIO(data)).verify()
    except HelloError as error:
        return str(error)
    return None


def rule(data: bytes) -> str | None:
    found = fault(data)
    return found and re.fullmatch(r".* \[([HC]\d+)\]", found)[1]  # type: ignore[index]


def refused(data: bytes) -> str | None:
    """Return the rule for which the reference refuses a file."""
    try:
        reference.read(data)
    except reference.RefusedError as error:
        return str(error.rule)
    return None


def test_tables_and_dump_of_the_text_are_those_of_code_and_vector() -> None:
    text = SPEC.read_text(encoding="utf-8")
    assert written(text) == text


def test_rules_are_numbered_in_order() -> None:
    found = re.findall(r"^- \*\*([HCV])(\d+)\*\* ", SPEC.read_text(encoding="utf-8"), re.MULTILINE)
    assert [kind + number for kind, number in found] == [
        f"{letter}{number}" for letter, count in (("H", 23), ("C", 9), ("V", 14)) for number in range(1, count + 1)
    ]


def test_each_way_to_break_a_rule_has_its_vector() -> None:
    assert {file.stem for file in files("broken")} == broken().keys()
    assert {file.stem for file in files("valid")} == valid().keys() | {"digits"}


@pytest.mark.parametrize("file", files("valid"), ids=lambda file: file.stem)
def test_valid_vector_is_read_alike(file: Path) -> None:
    found = reference.read(data := file.read_bytes())
    with Archive.open(file) as archive:
        archive.verify()
        assert found["content_id"] == archive.content_id
        assert found["targets"] == archive.targets().tolist()
        assert found["images"] == [archive.image(index) for index in range(archive.header.images.count)]
        assert found["sections"].keys() == {section.name for section in archive.header.sections}
    assert rule(data) is None


@pytest.mark.parametrize("file", files("broken"), ids=lambda file: file.stem)
def test_broken_vector_is_refused_by_its_rule(file: Path) -> None:
    data, expected = file.read_bytes(), file.stem.partition("-")[0]
    assert rule(data) == expected
    # What needs a decoder of zstd or of images, the reference cannot see.
    assert refused(data) in ((expected, None) if expected in ("C2", "C3") else (expected,))


def agree(data: bytes) -> None:
    ours, theirs = fault(data), refused(data)
    # The reference has no decoder of zstd, in which a projector is here, or of images; an Archive no opinion of views.
    if theirs is not None or ours is None or not re.search(r"\[C[23]\]$|section 'projector'.*\[C4\]$", ours):
        assert (ours is None) == (theirs in (None, "H23")), (ours, theirs)


def test_both_readers_have_the_same_verdict_on_mutated_files() -> None:
    generator = random.Random(1)
    originals = [whole(codec) for codec in CODECS]
    for _ in range(RUNS):
        agree(mutated(generator.choice(originals), generator))


def test_both_readers_have_the_same_verdict_on_files_that_were_changed_within_and_sealed_again() -> None:
    generator = random.Random(2)
    for _ in range(RUNS):
        agree(resealed(generator))
