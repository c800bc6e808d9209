"""Rendering: the bytes of the integer reference, and what torchvision shows."""

from typing import Any

import pytest
import reference_views as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

import hellods.views.render as module
from hellods.views.draw import Draw, blend, draw
from hellods.views.render import render
from hellods.views.rule import Views

from .plain import plain

MIXES = ["none", "cutmix", "mixup"]
# One by one by torch's kernel; all together, and in parts of one.
WAYS = [{"ALONE": 1}, {"ALONE": 1 << 40}, {"ALONE": 1 << 40, "CPU_PART": 1}]


def go(way: dict[str, int], patch: pytest.MonkeyPatch) -> None:
    for name, value in way.items():
        patch.setattr(module, name, value)


def pictures(count: int, tall: int, wide: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, tall, wide), dtype=torch.uint8, generator=generator)


def smooth(count: int, side: int) -> Tensor:
    """Pictures with edges and slopes, not noise alone."""
    coarse = pictures(count, 9, 9).float()
    return interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 255).to(torch.uint8)


def crops(size: int, boxes: list[list[int]]) -> Draw:
    whole = torch.zeros(len(boxes), 1, dtype=torch.int64)
    index = torch.arange(len(boxes))
    return Draw(size=size, index=index, box=torch.tensor(boxes), flip=whole[:, 0], rows=whole, columns=whole)


def by_reference(images: Tensor, drawn: Draw) -> Tensor:
    result = []
    for view in plain(drawn):
        for channel in range(3):
            seen = reference.rendered(images[view["index"], channel].tolist(), view, drawn.size)
            if "partner" in view:
                image = images[view["partner"]["index"], channel].tolist()
                seen = reference.mixed(seen, reference.rendered(image, view["partner"], drawn.size), view)
            result.append(seen)
    return torch.tensor(result, dtype=torch.uint8).view(-1, 3, drawn.size, drawn.size)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    size=st.integers(1, 20),
    shuffle=st.integers(1, 3),
    strip=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    mix=st.sampled_from(MIXES),
    seed=st.integers(0, 1 << 20),
    way=st.sampled_from(WAYS),
)
def test_views_are_those_of_the_integer_reference(
    size: int, shuffle: int, strip: tuple[int, int], mix: Any, seed: int, way: dict[str, int]
) -> None:
    side = (strip[0] * shuffle, strip[1] * shuffle)
    images = pictures(3, *side, seed=seed)
    drawn = draw(Views(size=size, shuffle=shuffle, mix=mix), side, 3, seed, 0, torch.tensor([2, 0, 1]))
    with pytest.MonkeyPatch.context() as patch:
        go(way, patch)
        assert torch.equal(render(images, drawn), by_reference(images, drawn))


@pytest.mark.parametrize("side", [(64, 96), (224, 224), (300, 7), (1, 400)])
@pytest.mark.parametrize("size", [1, 20, 64, 224])
@pytest.mark.parametrize("mix", MIXES)
def test_views_are_the_same_one_by_one_and_together(
    side: tuple[int, int], size: int, mix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = draw(Views(size=size, scale=(0.01, 1.0), mix=mix), side, 3, 5, 0, torch.tensor([0, 1, 2, 2]))
    found = []
    for way in WAYS:
        go(way, monkeypatch)
        for order in (torch.channels_last, torch.contiguous_format):
            found.append(render(pictures(3, *side).contiguous(memory_format=order), drawn))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_kernel_of_another_rule_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(2, 40, 30)
    drawn = draw(Views(size=20), (40, 30), 2, 0, 0, torch.arange(2))
    expected = by_reference(images, drawn)
    module._kernel_follows.cache_clear()
    monkeypatch.setattr(module, "ALONE", 1)
    monkeypatch.setattr(module, "interpolate", lambda crop, size, **_: torch.zeros(1, 3, *size, dtype=torch.uint8))
    try:
        assert torch.equal(render(images, drawn), expected)
    finally:
        module._kernel_follows.cache_clear()


@pytest.mark.parametrize(("length", "size"), [(4096, 1), (1, 4096), (4096, 4095), (4095, 4096), (224, 32), (160, 224)])
def test_weights_are_exact_and_sum_to_one_but_for_their_rounding(length: int, size: int) -> None:
    zero = torch.zeros(1, 1, dtype=torch.int64)
    weights = module._taps(torch.tensor([length]), zero[0], zero, length, size)[1].double()
    digits = 24 - 8 if length <= module.EXACT * size else 53 - 8  # beside those of a pixel
    assert torch.equal(weights * 2**digits, (weights * 2**digits).round())
    assert bool((weights >= 0).all())
    assert (weights.sum(2) - 1).abs().max() < 0.5 / 255  # so that white stays white


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_flat_image_stays_flat(level: int) -> None:
    images = torch.full((1, 3, 97, 61), level, dtype=torch.uint8)
    seen = render(images, draw(Views(size=40), (97, 61), 1, 0, torch.arange(20), torch.zeros(20, dtype=torch.int64)))
    assert seen.unique().tolist() == [level]


def test_crop_of_the_view_size_is_the_crop_itself() -> None:
    images = pictures(3, 40, 50)
    boxes = [[0, 0, 32, 32], [8, 18, 32, 32], [3, 7, 32, 32]]
    cut = [image[:, top : top + 32, left : left + 32] for image, (top, left, _, _) in zip(images, boxes, strict=True)]
    assert torch.equal(render(images, crops(32, boxes)), torch.stack(cut))


def test_flip_mirrors_the_same_view() -> None:
    images = pictures(1, 40, 50)
    plain_view = crops(32, [[3, 4, 29, 37]])
    flipped = Draw(**{**vars(plain_view), "flip": torch.ones(1, dtype=torch.int64)})
    assert torch.equal(render(images, flipped), render(images, plain_view).flip(3))


def test_strips_are_ordered_as_rded_orders_them() -> None:
    images = pictures(1, 6, 6)
    order = torch.tensor([[2, 0, 1]])
    drawn = Draw(**{**vars(crops(6, [[0, 0, 6, 6]])), "rows": order, "columns": torch.tensor([[1, 0, 2]])})
    assert torch.equal(render(images, drawn), images[:, :, [4, 5, 0, 1, 2, 3]][:, :, :, [2, 3, 0, 1, 4, 5]])


@pytest.mark.parametrize("size", [17, 32, 64, 96])
@pytest.mark.parametrize("make", [smooth, lambda count, side: pictures(count, side, side)], ids=["smooth", "noise"])
def test_resize_is_within_one_level_of_torchvision(size: int, make: Any) -> None:
    boxes = [[0, 0, 64, 64], [5, 9, 40, 31], [20, 0, 33, 64], [1, 2, 11, 9]]
    images = make(4, 64)
    ours = render(images, crops(size, boxes))
    for image, (top, left, height, width), view in zip(images, boxes, ours, strict=True):
        cut = image[None, :, top : top + height, left : left + width].float()
        theirs = interpolate(cut, size=(size, size), mode="bilinear", antialias=True)[0]
        assert (view - theirs).abs().max() <= 1.02  # two roundings, and weights of 15 bits


@pytest.mark.parametrize("mix", MIXES)
def test_view_does_not_depend_on_the_batch(mix: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = smooth(10, 48)
    views = Views(size=24, shuffle=2, mix=mix)
    for way in WAYS:
        go(way, monkeypatch)
        whole = render(images, draw(views, (48, 48), 10, 1, 2, torch.arange(10)))
        alone = torch.cat([render(images, draw(views, (48, 48), 10, 1, 2, index[None])) for index in torch.arange(10)])
        assert torch.equal(whole, alone)


@pytest.mark.parametrize("mix", MIXES)
def test_view_does_not_depend_on_threads(mix: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go(WAYS[0], monkeypatch)
    images = smooth(10, 48)
    drawn = draw(Views(size=24, shuffle=2, mix=mix), (48, 48), 10, 1, 2, torch.arange(10))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(render(images, drawn))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_view_does_not_depend_on_precision_settings() -> None:
    images = smooth(4, 48)
    drawn = draw(Views(size=40, mix="mixup"), (48, 48), 4, 1, 2, torch.arange(4))
    expected = render(images, drawn)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(render(images, drawn), expected)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_view_does_not_depend_on_the_memory_layout(way: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    go(way, monkeypatch)
    images = smooth(4, 48)
    drawn = draw(Views(size=40), (48, 48), 4, 1, 2, torch.arange(4))
    turned = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(render(turned, drawn), render(images, drawn))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_view_does_not_depend_on_the_default_dtype(
    dtype: torch.dtype, way: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    go(way, monkeypatch)
    images, drawn = smooth(4, 48), draw(Views(size=40, mix="mixup"), (48, 48), 4, 1, 2, torch.arange(4))
    expected = render(images, drawn)
    torch.set_default_dtype(dtype)
    try:
        drawn = draw(Views(size=40, mix="mixup"), (48, 48), 4, 1, 2, torch.arange(4))
        assert torch.equal(render(images, drawn), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_render_works_with_deterministic_algorithms() -> None:
    images = pictures(2, 16, 16)
    torch.use_deterministic_algorithms(True)
    try:
        assert render(images, draw(Views(size=8), (16, 16), 2, 0, 0, torch.arange(2))).shape == (2, 3, 8, 8)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("side", "size"), [(32, 32), (224, 224), (256, 224), (224, 32)])
def test_view_is_the_same_on_another_device(mix: Any, side: int, size: int, accelerator: str) -> None:
    images = smooth(64, side)
    drawn = draw(Views(size=size, shuffle=2, mix=mix), (side, side), 64, 1, 2, torch.arange(64))
    assert torch.equal(render(images.to(accelerator), drawn).cpu(), render(images, drawn))


def test_no_view_is_an_empty_batch() -> None:
    drawn = draw(Views(size=8, mix="cutmix"), (16, 16), 4, 0, 0, torch.arange(0))
    assert render(pictures(4, 16, 16), drawn).shape == (0, 3, 8, 8)


def test_images_are_left_as_they_were() -> None:
    images = pictures(4, 16, 16)
    before = images.clone()
    render(images, draw(Views(size=16, scale=(1.0, 1.0), mix="mixup"), (16, 16), 4, 0, 0, torch.arange(4)))
    assert torch.equal(images, before)


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), pictures(2, 8, 8)[:, :1], pictures(2, 8, 8)[0]])
def test_images_of_another_type_or_shape_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected torch\.uint8 \(N, 3, H, W\)"):
        render(images, draw(Views(size=8), (8, 8), 2, 0, 0, torch.arange(1)))


def test_truth_is_blended_as_the_pixels_are() -> None:
    # An image of class k is all 10·k, so the mean of a view tells how much of each class it shows.
    images = (torch.arange(8)[:, None, None, None] * 10).expand(8, 3, 16, 16).to(torch.uint8).contiguous()
    truth = torch.eye(8)
    for mix in ("none", "cutmix", "mixup"):
        drawn = draw(Views(size=16, mix=mix), (16, 16), 8, 3, 0, torch.arange(8))
        shown = render(images, drawn).float().mean((1, 2, 3))
        expected = blend(truth, drawn) @ torch.arange(0.0, 80.0, 10.0)
        torch.testing.assert_close(shown, expected, atol=0.51, rtol=0)
