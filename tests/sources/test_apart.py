"""Held-out images that are learned from are said, and refused where they are many."""

import logging
from pathlib import Path

import pytest
import torch
from PIL import Image

from hellods.errors import SourceError
from hellods.sources.apart import check_apart
from hellods.sources.source import Pixels, Source, open_source


def split(root: Path, train: int, held: range) -> tuple[Source, Source]:
    """Return `train` images of each of two classes, and those held out that have the numbers of `held`."""
    for part, numbers in (("train", range(train)), ("val", held)):
        for label, shift in (("a", 0), ("b", 100)):
            folder = root / part / label
            folder.mkdir(parents=True)
            for number in numbers:
                Image.new("RGB", (8, 8), (number, shift, 0)).save(folder / f"{part}{number}.png")
    parts = open_source(str(root))
    for source in parts:
        source.check()
    return parts


def test_others_pass_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_apart(*split(tmp_path, 3, range(3, 6)))
    assert not caplog.messages


def test_a_few_copies_are_said_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_apart(*split(tmp_path, 3, range(2, 6)))
    (message,) = caplog.messages
    assert "val: 2 of 8 images are also among those to learn from: a/val2.png, b/val2.png; accuracies" in message


def test_half_of_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"val: 4 of 8 images are also among .*; hold out others"):
        check_apart(*split(tmp_path, 4, range(2, 6)))


def test_a_known_set_passes() -> None:
    source = Pixels("known", ("a",), [0], torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    check_apart(source, source)
