"""What a student sees: every image once an epoch, each with the labels of the very view."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hellods.device import Clock
from hellods.evaluate import feed
from hellods.evaluate.feed import Feed, Lesson, batch_sizes
from hellods.views.rule import Views

from .lessons import CLASSES, COUNT, SIDE, brightness, lesson, random_images

CPU = torch.device("cpu")


def fed(wanted: Lesson, seed: int = 0) -> list[tuple[Tensor, tuple[Tensor | None, Tensor]]]:
    return list(Feed(wanted, seed, CPU, Clock(CPU)))


def test_every_image_is_seen_once_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    original = feed.draw

    def spy(views: Views, side: Any, count: int, seed: int, epoch: Tensor, indices: Tensor) -> Any:
        seen.extend(zip(epoch.tolist(), indices.tolist(), strict=True))
        return original(views, side, count, seed, epoch, indices)

    monkeypatch.setattr(feed, "draw", spy)
    batches = fed(lesson())
    assert sorted(seen) == [(epoch, index) for epoch in range(3) for index in range(COUNT)]
    assert [len(images) for images, _ in batches] == [5, 5, 4] * 3


def test_each_epoch_has_another_order_and_other_views() -> None:
    batches = fed(lesson())
    assert not torch.equal(batches[0][1][1], batches[3][1][1])
    assert not torch.equal(batches[0][0], batches[3][0])


@pytest.mark.parametrize("ahead", [1, 3 * SIDE * SIDE * 5 * 2, 1 << 30])
def test_batches_are_the_same_however_many_are_made_ahead(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = fed(lesson())
    monkeypatch.setattr(feed, "AHEAD", ahead)
    for (images, (labels, truth)), (others, (theirs, shares)) in zip(usual, fed(lesson()), strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, theirs)
        assert torch.equal(truth, shares)


def test_labels_are_of_the_very_views_mixed_as_they_are() -> None:
    for images, (labels, _) in fed(lesson()):
        pixels = (images * 0.25 + 0.5) * 255
        torch.testing.assert_close(labels, brightness(pixels), atol=1e-3, rtol=1e-3)


def test_truth_is_shared_by_the_area_that_cutmix_takes() -> None:
    # Images of one colour each: a view shows exactly how much of it is whose.
    images, targets = torch.zeros(CLASSES, 3, SIDE, SIDE, dtype=torch.uint8), torch.arange(CLASSES)
    images[range(CLASSES), range(CLASSES)] = 255
    plain = replace(lesson(None), pixels=images.__getitem__, targets=targets, steps=1, std=(1, 1, 1), mean=(0, 0, 0))
    batches = fed(replace(plain, protocol=replace(plain.protocol, epochs=40)))
    for views, (_, truth) in batches:
        torch.testing.assert_close(views.mean((2, 3)), truth)
    shares = torch.cat([truth for _, (_, truth) in batches])
    assert ((shares > 0) & (shares < 1)).any()


def test_area_of_cutmix_is_betas_less_what_the_border_cuts_off() -> None:
    # Beta(1, 1): the area is uniform. Of a side s around a uniform place, s - s² / 4 lies within, in the mean.
    views, parts = Views(size=64, mix="cutmix"), []
    for epoch in range(100):
        drawn = feed.draw(views, (SIDE, SIDE), COUNT, 0, epoch, torch.arange(COUNT))
        assert drawn.patch is not None
        parts.append(drawn.patch[:, 2] * drawn.patch[:, 3] / 64**2)
    sides = [((k + 0.5) / 1000) ** 0.5 for k in range(1000)]
    expected = sum((s - s**2 / 4) ** 2 for s in sides) / len(sides)
    assert torch.cat(parts).mean().item() == pytest.approx(expected, abs=0.02)


def test_unmixed_views_are_of_one_class() -> None:
    for _, (_, truth) in fed(lesson(None, {"mix": "none"})):
        assert torch.equal(truth.sort(1).values, torch.tensor([0.0, 0.0, 1.0]).expand(len(truth), 3))


def test_stored_views_come_again_and_no_others() -> None:
    def views(repeat: int | None) -> set[bytes]:
        wanted = replace(lesson(), repeat=repeat)
        batches = fed(replace(wanted, protocol=replace(wanted.protocol, epochs=6)))
        return {view.numpy().tobytes() for images, _ in batches for view in images.contiguous()}

    assert len(views(2)) == 2 * COUNT
    assert views(2) < views(None)
    assert len(views(None)) == 6 * COUNT


def test_another_order_does_not_change_the_stored_views() -> None:
    wanted = replace(lesson(), repeat=1)
    first, second = (torch.cat([images for images, _ in fed(wanted)][start : start + 3]) for start in (0, 3))
    assert not torch.equal(first, second)
    assert {v.numpy().tobytes() for v in first.contiguous()} == {v.numpy().tobytes() for v in second.contiguous()}


def test_a_set_larger_than_the_steps_is_seen_on_and_on() -> None:
    wanted = replace(lesson(), steps=2)
    assert [len(images) for images, _ in fed(wanted)] == [5, 5, 4, 5, 5, 4]


@pytest.mark.parametrize(
    ("images", "most", "expected"),
    [
        (20, 10, [10, 10]),
        (22, 10, [10, 10, 2]),
        (21, 10, [10, 11]),
        (11, 10, [11]),
        (9, 10, [9]),
        (1, 10, [1]),
        (2, 1, [1, 1]),
    ],
)
def test_an_image_that_would_be_alone_joins_the_step_before(images: int, most: int, expected: list[int]) -> None:
    assert batch_sizes(images, most) == expected


def test_no_more_labels_are_compared_than_wanted_when_the_last_step_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SEEN", 10)
    wanted = Feed(replace(lesson(batch_size=13), steps=1), 0, CPU, Clock(CPU))
    assert [len(images) for images, _ in wanted] == [COUNT] * 3
    found = wanted.fidelity()
    assert found is not None
    assert found["views"] == 10


def test_only_the_images_of_some_batches_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    images = random_images(COUNT, 0)[0]

    def pixels(indices: Tensor) -> Tensor:
        asked.append(len(indices))
        assert len(indices.unique()) == len(indices)
        return images[indices]

    monkeypatch.setattr(feed, "AHEAD", 1)
    fed(replace(lesson(), pixels=pixels))
    assert max(asked) <= 10  # a batch of five, and their partners


def test_labels_of_a_maker_that_could_learn_teach_only_the_student() -> None:
    maker = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
    batches = fed(lesson(lambda images: maker(images.float())))
    assert not any(label.requires_grad for _, (label, _) in batches if label is not None)
