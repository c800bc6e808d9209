"""Draws: the same integers everywhere, distributed as the published augmentations are."""

import json
from dataclasses import fields
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
import reference_views as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from hellods.record import from_json, to_json
from hellods.views.draw import RATIOS, draw, middle
from hellods.views.render import render
from hellods.views.rule import Views

from .plain import plain

VECTORS = json.loads((Path(__file__).parents[2] / "spec" / "vectors" / "views.json").read_text())
MIXES = ["none", "cutmix", "mixup"]
MANY = 10_000  # draws for a distribution

rules = st.builds(
    Views,
    size=st.integers(1, 4096),
    scale=st.tuples(st.floats(1e-3, 1.0), st.floats(1e-3, 1.0)).map(lambda pair: (min(pair), max(pair))),
    flip=st.booleans(),
    shuffle=st.integers(1, 16),
    mix=st.sampled_from(MIXES),
)


def boxes(views: Views, side: tuple[int, int]) -> Tensor:
    return draw(views, side, MANY, 7, 3, torch.arange(MANY)).box


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Kolmogorov and Smirnov's distance: the largest difference of the two distribution functions."""
    points = torch.cat([ours, theirs]).unique()
    shares = [torch.searchsorted(some.sort()[0], points, right=True) / len(some) for some in (ours, theirs)]
    return float((shares[0] - shares[1]).abs().max())


def uneven(counts: Tensor) -> float:
    """Chi-square per degree of freedom: about 1 for a fair draw."""
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1))


@pytest.mark.parametrize("case", VECTORS["draws"], ids=lambda case: case["what"])
def test_committed_vectors_are_drawn(case: dict[str, Any]) -> None:
    views = from_json(Views, case["views"], "views.json")
    indices = torch.tensor([view["index"] for view in case["drawn"]])
    assert plain(draw(views, case["side"], case["count"], case["seed"], case["epoch"], indices)) == case["drawn"]


def test_ratio_table_is_the_committed_one() -> None:
    assert RATIOS.tolist() == VECTORS["ratios"]


def test_ratio_table_is_no_matter_of_float_rounding() -> None:
    with localcontext(prec=50):
        exact = [65536 * (Decimal(4) / 3) ** (Decimal(2 * k - 1023) / 1024) for k in range(1024)]
    assert min(abs(value % 1 - Decimal("0.5")) for value in exact) > Decimal("1e-6")


@settings(max_examples=60, derandomize=True, deadline=None)
@given(rules, st.data())
def test_draw_follows_the_rules(views: Views, data: st.DataObject) -> None:
    lengths = st.integers(1, 4096 // views.shuffle).map(lambda strip: strip * views.shuffle)
    side = data.draw(st.tuples(lengths, lengths))
    count = data.draw(st.integers(1, 1 << 31))
    seed = data.draw(st.integers(0, (1 << 63) - 1))
    epoch = data.draw(st.integers(0, (1 << 31) - 1))
    index = data.draw(st.integers(0, count - 1))
    rule = {field.name: getattr(views, field.name) for field in fields(views)}
    expected = json.loads(json.dumps(reference.drawn(rule, side, count, seed, epoch, index)))
    assert plain(draw(views, side, count, seed, epoch, torch.tensor([index]))) == [expected]


@pytest.mark.parametrize("mix", MIXES)
def test_draw_is_the_same_for_any_order_and_split(mix: Any) -> None:
    views = Views(size=32, shuffle=2, mix=mix)
    whole = plain(draw(views, (64, 48), 100, 1, 5, torch.arange(100)))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    parts = [plain(draw(views, (64, 48), 100, 1, 5, part)) for part in order.split(7)]
    assert [view for part in parts for view in part] == [whole[i] for i in order.tolist()]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_draw_with_an_epoch_for_each_index_is_that_of_each_epoch(mix: Any, kind: torch.dtype) -> None:
    views = Views(size=32, mix=mix)
    epochs = torch.tensor([4, 0, 4, 9], dtype=kind)
    indices = torch.tensor([3, 3, 8, 1], dtype=kind)
    together = plain(draw(views, (32, 32), 10, 1, epochs, indices))
    alone = [plain(draw(views, (32, 32), 10, 1, int(e), i[None]))[0] for e, i in zip(epochs, indices, strict=True)]
    assert together == alone


@pytest.mark.parametrize("mix", MIXES)
def test_draw_is_the_same_on_another_device(mix: Any, accelerator: str) -> None:
    views = Views(size=224, shuffle=4, mix=mix)
    here = draw(views, (224, 256), MANY, 1, 5, torch.arange(MANY))
    there = draw(views, (224, 256), MANY, 1, 5, torch.arange(MANY, device=accelerator))
    assert plain(here) == plain(there.to("cpu"))


def test_draw_of_no_index_is_empty() -> None:
    assert plain(draw(Views(size=8, mix="cutmix"), (8, 8), 10, 0, 0, torch.arange(0))) == []


@pytest.mark.parametrize("which", ["seed", "epoch"])
def test_another_seed_or_epoch_is_another_draw(which: str) -> None:
    def with_(value: int) -> Tensor:
        return draw(
            Views(size=8), (256, 256), 100, **{"seed": 0, "epoch": 0, which: value}, indices=torch.arange(100)
        ).box

    same = sum((with_(0) == with_(value)).all(1).sum().item() for value in range(1, 6))
    assert same <= 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"side": (33, 32)}, "side 33 is not divisible by shuffle 2"),
        ({"side": (32, 0)}, "side is 0"),
        ({"side": (4098, 32)}, "side is 4098"),
        ({"count": 0}, "count is 0"),
        ({"count": (1 << 31) + 1}, "count is 2147483649"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1 << 63}, "seed is 9223372036854775808"),
    ],
)
def test_number_out_of_range_is_refused_and_named(change: dict[str, Any], named: str) -> None:
    arguments: dict[str, Any] = {"side": (32, 32), "count": 10, "seed": 0, "epoch": 0, "indices": torch.arange(2)}
    with pytest.raises(ValueError, match=named):
        draw(Views(size=32, shuffle=2), **{**arguments, **change})


@pytest.mark.parametrize(
    ("scale", "side"),
    [
        ((0.08, 1.0), (224, 224)),
        ((0.08, 1.0), (32, 32)),
        ((0.5, 1.0), (224, 224)),
        ((0.2, 0.3), (96, 160)),
        ((0.5, 1.0), (300, 128)),
        ((1.0, 1.0), (96, 128)),
        ((1.0, 1.0), (32, 32)),
    ],
)
def test_crops_are_distributed_as_those_of_torchvision(scale: tuple[float, float], side: tuple[int, int]) -> None:
    image = torch.empty(1, *side)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(0)
        theirs = torch.tensor([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(2000)])

    def measures(box: Tensor) -> Tensor:
        top, left, height, width = box.double().unbind(1)
        return torch.stack([top, left, height, width, height * width, width / height])

    ours = measures(boxes(Views(size=8, scale=scale), side))
    assert max(apart(*pair) for pair in zip(ours, measures(theirs), strict=True)) < 0.04


def test_whole_square_is_taken_at_scale_one() -> None:
    assert boxes(Views(size=32, scale=(1.0, 1.0)), (32, 32)).unique(dim=0).tolist() == [[0, 0, 32, 32]]


@pytest.mark.parametrize("side", [(4096, 3), (3, 4096), (1, 1), (7, 5)])
def test_crops_lie_inside_the_image(side: tuple[int, int]) -> None:
    top, left, height, width = boxes(Views(size=8), side).unbind(1)
    inside = (top >= 0) & (left >= 0) & (height >= 1) & (width >= 1)
    assert bool((inside & (top + height <= side[0]) & (left + width <= side[1])).all())


@pytest.mark.parametrize(("side", "box"), [((400, 90), [140, 0, 120, 90]), ((90, 400), [0, 140, 90, 120])])
def test_image_that_no_attempt_fits_gives_its_center(side: tuple[int, int], box: list[int]) -> None:
    assert boxes(Views(size=8, scale=(1.0, 1.0)), side).unique(dim=0).tolist() == [box]


@pytest.mark.parametrize(
    ("side", "box"), [((30, 41), [0, 5, 30, 30]), ((41, 30), [5, 0, 30, 30]), ((7, 7), [0, 0, 7, 7])]
)
def test_middle_is_the_largest_square_as_it_stands(side: tuple[int, int], box: list[int]) -> None:
    found = middle(8, side, torch.tensor([5, 2]))
    assert (found.size, found.index.tolist(), found.box.tolist()) == (8, [5, 2], [box] * 2)
    assert [value.tolist() for value in (found.flip, found.rows, found.columns)] == [[0, 0], [[0], [0]], [[0], [0]]]


def test_half_of_the_views_are_flipped() -> None:
    flips = draw(Views(size=8), (8, 8), MANY, 0, 0, torch.arange(MANY)).flip
    assert uneven(flips.bincount(minlength=2)) < 4


def test_no_view_is_flipped_when_the_rule_says_so() -> None:
    assert not draw(Views(size=8, flip=False), (8, 8), MANY, 0, 0, torch.arange(MANY)).flip.any()


def test_flip_says_nothing_about_the_next_epoch_or_index() -> None:
    flips = torch.stack([draw(Views(size=8), (8, 8), MANY, 0, e, torch.arange(MANY)).flip for e in range(2)])
    pairs = torch.cat([2 * flips[0] + flips[1], 2 * flips[0, :-1] + flips[0, 1:]])
    assert uneven(pairs.bincount(minlength=4)) < 4


def test_every_order_of_strips_is_as_frequent() -> None:
    drawn = draw(Views(size=8, shuffle=3), (9, 9), MANY, 0, 0, torch.arange(MANY))
    orders = torch.cat([drawn.rows, drawn.columns], dim=1) @ torch.tensor([3**k for k in range(6)])
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == 36
    assert uneven(counts) < 2


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_partners_are_drawn_over_the_whole_set(mix: Any) -> None:
    drawn = draw(
        Views(size=8, mix=mix), (8, 8), 50, 0, torch.arange(400).repeat_interleave(50), torch.arange(50).repeat(400)
    )
    assert drawn.partner is not None
    counts = (50 * drawn.index + drawn.partner.index).bincount(minlength=2500)
    assert uneven(counts) < 1.2


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_partner_is_seen_as_it_is_drawn_itself(mix: Any) -> None:
    drawn = draw(Views(size=8, mix=mix, shuffle=2), (32, 32), 50, 0, 3, torch.arange(50))
    assert drawn.partner is not None
    alone = draw(Views(size=8, shuffle=2), (32, 32), 50, 0, 3, drawn.partner.index)
    assert plain(drawn.partner) == plain(alone)


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup"])
def test_views_of_the_images_that_they_show_are_the_same(mix: Any) -> None:
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    drawn = draw(Views(size=6, mix=mix), (8, 8), 40, 3, 1, torch.tensor([5, 9, 5, 0]))
    shown, here = drawn.compact()
    assert sorted(shown.tolist()) == sorted(set(drawn.shown.tolist()))
    assert len(shown) < 40
    assert torch.equal(render(images[shown], here), render(images, drawn))


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_mixing_leaves_the_own_view_as_it_was(mix: Any) -> None:
    mixed = plain(draw(Views(size=8, mix=mix), (32, 32), 50, 0, 3, torch.arange(50)))
    alone = plain(draw(Views(size=8), (32, 32), 50, 0, 3, torch.arange(50)))
    assert [{key: view[key] for key in alone[0]} for view in mixed] == alone


def test_only_image_of_a_set_is_its_own_partner() -> None:
    drawn = draw(Views(size=8, mix="mixup"), (8, 8), 1, 0, torch.arange(100), torch.zeros(100, dtype=torch.int64))
    assert drawn.partner is not None
    assert not drawn.partner.index.any()


def test_mixup_weights_are_uniform() -> None:
    weight = draw(Views(size=8, mix="mixup"), (8, 8), MANY, 0, 0, torch.arange(MANY)).weight
    assert weight is not None
    assert weight.min() >= 0
    assert weight.max() <= 2048
    assert uneven((weight * 32 // 2049).bincount(minlength=32)) < 1.6


def test_patches_are_distributed_as_those_of_published_cutmix() -> None:
    patch = draw(Views(size=224, mix="cutmix"), (8, 8), MANY, 0, 0, torch.arange(MANY)).patch
    assert patch is not None
    generator = torch.Generator().manual_seed(0)
    ratio = (1 - torch.rand(MANY, generator=generator, dtype=torch.float64)).sqrt()
    half = (224 * ratio).long()[:, None] // 2
    middle = torch.randint(224, (MANY, 2), generator=generator)
    start, stop = (middle - half).clamp_min(0), (middle + half).clamp_max(224)
    published = torch.cat([start, stop - start], dim=1)
    assert max(apart(*pair) for pair in zip(patch.T, published.T, strict=True)) < 0.03


def test_rule_survives_the_header_and_draws_the_same() -> None:
    views = Views(size=8, scale=(1 / 3, 0.9))
    again = from_json(Views, to_json(views), "header.views")
    assert torch.equal(boxes(views, (64, 64)), boxes(again, (64, 64)))
