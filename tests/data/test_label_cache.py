import logging

import pytest
import torch
from torch import Tensor

from hellods import LabelError
from hellods.data import label_cache
from hellods.data.label_cache import LabelCache

TRUTH = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


class Maker:
    """Answers for rows; it counts how many it was asked for, and answers a little differently each time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, labels: LabelCache, rows: list[int]) -> Tensor:
        wanted = torch.tensor(rows)

        def make(places: Tensor) -> Tensor:
            self.asked += len(places)
            return TRUTH[wanted[places]] * (1 + 1e-3 * torch.arange(self.asked, self.asked + len(places))[:, None])

        return labels.get(wanted, make)


def test_label_is_made_once_and_then_the_same() -> None:
    maker, labels = Maker(), LabelCache(10, 3, "x.hello")
    first = maker(labels, [3, 8, 0])
    second = maker(labels, [0, 5, 3])
    assert torch.equal(second[[2, 0]], first[[0, 2]])
    assert maker.asked == 4


def test_labels_are_those_of_their_rows_in_half_precision() -> None:
    labels = LabelCache(10, 3, "x.hello")
    found = labels.get(torch.tensor([9, 1]), lambda places: TRUTH[torch.tensor([9, 1])[places]])
    assert found.dtype == torch.float16
    assert torch.equal(found, TRUTH[[9, 1]].half())


def test_row_that_stands_twice_in_a_batch_has_one_label() -> None:
    found = Maker()(LabelCache(10, 3, "x.hello"), [4, 4])
    assert torch.equal(found[0], found[1])


def test_memory_is_bounded_and_what_exceeds_it_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(label_cache, "MAX_BYTES", 30)  # four rows of three halves and a flag
    maker = Maker()
    with caplog.at_level(logging.WARNING, "hellods"):
        labels = LabelCache(10, 3, "x.hello")
    first = maker(labels, [2, 7])
    again = maker(labels, [2, 7])
    assert torch.equal(first[0], again[0])
    assert torch.allclose(again[1].float(), TRUTH[7], rtol=0.02)
    assert maker.asked == 3
    assert caplog.messages == [
        "x.hello: the labels of 10 views exceed 30 bytes: those of the first 4 are kept, the others made anew"
    ]


def test_label_beyond_half_precision_is_refused() -> None:
    # Whether views= was given, or view=None or train=False, which have one view an image.
    with pytest.raises(LabelError, match=r"exceeds 65504.*take labels='soft', or views that do not repeat"):
        LabelCache(2, 1, "x.hello").get(torch.tensor([1]), lambda places: torch.full((1, 1), 7e4))
