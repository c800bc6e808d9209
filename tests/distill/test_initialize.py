"""First images: RDED's procedure against a plain second telling of it, and random real images."""

import pytest
import torch
from torch import Tensor, nn

from hellods.distill.initialize import INITIALIZERS, Layout, check_enough, initialize, score, tile
from hellods.errors import SourceError
from hellods.sources.source import Pixels, squares
from hellods.teachers.teacher import Teacher

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def lay(images_per_class: int, side: int, factor: int = 1, candidates: int = 300, crops: int = 5) -> Layout:
    return Layout(images_per_class=images_per_class, side=side, factor=factor, candidates=candidates, crops=crops)


class Brightness(nn.Module):
    """Logits that grow with the mean of the first K channels."""

    def forward(self, images: Tensor) -> Tensor:
        return 5 * images.mean((2, 3))


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(Brightness(), architecture="brightness", mean=MEAN, std=STD)


@pytest.fixture
def source() -> Pixels:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 20, 24), dtype=torch.uint8, generator=generator)
    return Pixels("noise", ("red", "green", "blue"), [i % 3 for i in range(60)], images)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("factor", [1, 2])
def test_every_class_gets_its_images_in_order(name: str, factor: int, source: Pixels, teacher: Teacher) -> None:
    layout = lay(images_per_class=2, side=16, factor=factor)
    images = initialize(name, source, teacher, layout, seed=7)
    assert images.dtype == torch.uint8
    assert images.shape == (6, 3, 16, 16)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_same_seed_gives_the_same_images(name: str, source: Pixels, teacher: Teacher) -> None:
    layout = lay(images_per_class=2, side=16)
    first, second = (initialize(name, source, teacher, layout, seed=7) for _ in range(2))
    assert torch.equal(first, second)


def test_real_images_are_real_and_all_different(source: Pixels, teacher: Teacher) -> None:
    layout = lay(images_per_class=20, side=16)
    images = initialize("real", source, teacher, layout, seed=7)
    for label in range(3):
        theirs = squares(source, torch.nonzero(source.targets == label).flatten(), 16)
        chosen = images[20 * label : 20 * label + 20]
        assert {bytes(image.numpy()) for image in chosen} == {bytes(image.numpy()) for image in theirs}


def test_score_is_cross_entropy_of_the_crop_in_zeros_after_normalization(teacher: Teacher) -> None:
    crops = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=generator())
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    padded = torch.zeros(3, 3, 16, 16)
    padded[:, :, 4:12, 4:12] = (crops / 255 - mean) / std
    probabilities = torch.softmax(5 * padded.mean((2, 3)), dim=1)
    torch.testing.assert_close(score(teacher, crops, 1, 16), -probabilities[:, 1].log())


def test_patches_are_the_best_crop_of_each_image_by_rising_loss(source: Pixels, teacher: Teacher) -> None:
    layout = lay(images_per_class=5, side=16)
    images = initialize("patches", source, teacher, layout, seed=7)
    for label in range(3):
        losses = score(teacher, images[5 * label : 5 * label + 5], label, 16)
        assert torch.equal(losses, losses.sort().values)
    chance = score(teacher, initialize("real", source, teacher, layout, seed=7)[:5], 0, 16)
    assert score(teacher, images[:5], 0, 16).mean() < chance.mean()


def test_chunk_k_of_the_patches_fills_cell_k() -> None:
    tiled = tile(torch.arange(12).view(12, 1, 1, 1).expand(12, 3, 2, 2).to(torch.uint8), 2)
    assert tiled.shape == (3, 3, 4, 4)
    for image in range(3):
        cells = tiled[image, 0, ::2, ::2].flatten().tolist()
        assert cells == [image, 3 + image, 6 + image, 9 + image]


def test_patches_are_square_with_areas_spread_as_published(teacher: Teacher) -> None:
    # The red channel holds the column and the green one the row, so a crop shows where it was taken.
    ramp = torch.arange(200, dtype=torch.uint8)
    image = torch.stack([ramp.expand(200, 200), ramp[:, None].expand(200, 200), torch.zeros(200, 200).byte()])
    source = Pixels("ramps", ("ramp",), [0] * 400, image.expand(400, 3, 200, 200))
    crops = initialize("patches", source, teacher, lay(400, side=64, candidates=400, crops=1), seed=7).float()
    width = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]) * 64 / 63
    height = (crops[:, 1, -1, 0] - crops[:, 1, 0, 0]) * 64 / 63
    assert (width - height).abs().max() < 4
    areas = (width / 200) ** 2
    assert areas.min() > 0.06
    assert abs(areas.mean().item() - 0.54) < 0.04  # uniform from 0.08 to 1


@pytest.mark.parametrize(
    ("layout", "initializer", "words"),
    [
        (lay(images_per_class=21, side=16), "real", "`images_per_class=20`"),
        (lay(images_per_class=6, side=16, factor=2), "patches", "`images_per_class=5`"),
        (lay(images_per_class=1, side=16, factor=5), "patches", "`factor=1`$"),
    ],
)
def test_too_few_images_say_what_to_choose(layout: Layout, initializer: str, words: str, source: Pixels) -> None:
    with pytest.raises(SourceError, match=f"'red' has 20 training images.*{words}"):
        check_enough(source, layout, initializer)


def test_just_enough_images_are_enough(source: Pixels, teacher: Teacher) -> None:
    layout = lay(images_per_class=5, side=16, factor=2, candidates=1)
    check_enough(source, layout, "patches")
    assert len(initialize("patches", source, teacher, layout, seed=7)) == 15
