"""What is charged to an arm is what would have to be sent for it, and nothing that only others need."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hellods.evaluate.arms import ARMS
from hellods.evaluate.sizes import image_bytes, rest_bytes
from hellods.evaluate.subject import Subject

from .conftest import rewritten

OWN = [name for name, arm in ARMS.items() if arm.labels == "hello"]
OTHERS = [name for name, arm in ARMS.items() if arm.labels != "hello" and arm.images != "all"]


def test_bytes_of_the_archive_are_those_of_its_file(read: dict[str, Any], digits_archive: Path) -> None:
    size = read["archives"][0]["arms"]["hello"]["bytes"]
    assert sum(size.values()) == digits_archive.stat().st_size
    assert list(size) == ["images", "labels", "rest"]


@pytest.mark.parametrize("arm", OTHERS)
def test_other_labels_are_not_charged_with_what_the_label_maker_needs(
    arm: str, subject: Subject, bare_archive: Path
) -> None:
    assert rest_bytes(subject, ARMS[arm]) == bare_archive.stat().st_size - sum(image_bytes(subject))
    assert rest_bytes(subject, ARMS[arm]) < rest_bytes(subject, ARMS["hello"])


@pytest.mark.parametrize("arm", OWN)
def test_the_archives_labels_are_charged_with_all_of_its_file(arm: str, subject: Subject) -> None:
    whole = subject.path.stat().st_size
    assert rest_bytes(subject, ARMS[arm]) == whole - subject.label_bytes - sum(image_bytes(subject))


def test_what_others_put_into_a_file_is_charged_to_all(subject: Subject, digits_archive: Path, tmp_path: Path) -> None:
    facts = {"a fact": "of others" * 100}
    path = rewritten(digits_archive, tmp_path / "more.hello", metrics=facts)
    more = replace(subject, path=path, header=replace(subject.header, metrics=facts))
    added = path.stat().st_size - digits_archive.stat().st_size
    assert added > 0
    for arm in ("hello", "teacher"):
        assert rest_bytes(more, ARMS[arm]) == pytest.approx(rest_bytes(subject, ARMS[arm]) + added, abs=64)  # padding


def test_all_real_images_need_nothing_else(subject: Subject) -> None:
    assert rest_bytes(subject, ARMS["full"]) == 0
