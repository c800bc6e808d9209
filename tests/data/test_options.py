"""What a user may choose of views and labels: which view a sample shows, and that its label is exact for it."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference_reader as reference
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hellods import Archive, FormatError, HelloDataset, HelloLoader, OptionError
from hellods.data.options import read_views
from hellods.data.samples import Samples
from hellods.labels.projector import Projector
from hellods.views.draw import Draw, draw
from hellods.views.render import render
from hellods.views.rule import Views

# Of the archive that conftest.py writes.
COUNT, SIDE = 20, 16
VIEWS = Views(size=12, mix="cutmix")
HALF = 2**-11  # what rounding a probability to float16 changes at most


@pytest.fixture
def seen(pixels: Tensor) -> Callable[..., Tensor]:
    def seen(rule: Views, epoch: int) -> Tensor:
        return render(pixels, draw(rule, (SIDE, SIDE), COUNT, 0, epoch, torch.arange(COUNT)))

    return seen


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the label maker was shown, call by call."""
    counts: list[int] = []
    answer = Samples.answer

    def counted(samples: Samples, images: Tensor) -> Tensor:
        counts.append(len(images))
        return answer(samples, images)

    monkeypatch.setattr(Samples, "answer", counted)
    return counts


def soft(projector: Projector, views: Tensor) -> Tensor:
    with torch.no_grad():
        return projector(views).softmax(1)


def epoch_of(dataset: HelloDataset) -> tuple[Tensor, Tensor]:
    ((images, labels),) = DataLoader(dataset, COUNT)
    return images, labels.to("cpu")


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup"])
def test_mix_of_the_user_is_that_of_images_and_labels(
    mix: Any, archive: Path, seen: Callable[..., Tensor], projector: Projector
) -> None:
    expected = seen(replace(VIEWS, mix=mix), 0)
    images, labels = epoch_of(HelloDataset(archive, mix=mix, normalize=False))
    assert torch.equal(images, expected)
    assert torch.allclose(labels, soft(projector, expected), atol=1e-5)


def test_rule_of_the_user_is_that_of_images_and_labels(
    archive: Path, seen: Callable[..., Tensor], projector: Projector
) -> None:
    rule = Views(size=9, scale=(0.5, 0.9), flip=False, shuffle=2, mix="mixup")
    images, labels = epoch_of(HelloDataset(archive, view=rule, normalize=False))
    assert torch.equal(images, seen(rule, 0))
    assert torch.allclose(labels, soft(projector, seen(rule, 0)), atol=1e-5)


def test_plain_images_are_those_of_the_file_in_every_epoch(archive: Path, pixels: Tensor, projector: Projector) -> None:
    dataset = HelloDataset(archive, view=None, normalize=False)
    for _ in range(2):
        images, labels = epoch_of(dataset)
        assert torch.equal(images, pixels)
        assert torch.allclose(labels, soft(projector, pixels), atol=HALF)


def test_centre_view_is_the_whole_of_a_square_image(archive: Path, pixels: Tensor, projector: Projector) -> None:
    box, zeros = torch.tensor([[0, 0, SIDE, SIDE]]).expand(COUNT, 4), torch.zeros(COUNT, 1, dtype=torch.int64)
    whole = Draw(size=12, index=torch.arange(COUNT), box=box, flip=zeros[:, 0], rows=zeros, columns=zeros)
    dataset = HelloDataset(archive, train=False, normalize=False)
    for _ in range(2):
        images, labels = epoch_of(dataset)
        assert torch.equal(images, render(pixels, whole))
        assert torch.allclose(labels, soft(projector, render(pixels, whole)), atol=HALF)


@pytest.mark.parametrize(
    "options", [{"temperature": 4.0}, {"train": False}, {"labels": "logits"}, {"seed": 1}, {"mix": "none"}], ids=str
)
def test_data_sets_of_one_file_side_by_side_have_the_labels_of_their_own_options(
    options: dict[str, Any], archive: Path
) -> None:
    alone = epoch_of(HelloDataset(archive, **options))[1]
    plain, other = HelloDataset(archive), HelloDataset(archive, **options)
    assert torch.equal(epoch_of(other)[1], alone)
    assert not torch.allclose(epoch_of(plain)[1], alone, atol=1e-3)


def test_views_repeat_after_as_many_epochs(archive: Path, seen: Callable[..., Tensor]) -> None:
    dataset = HelloDataset(archive, views=2, normalize=False)
    for epoch in (0, 1, 0, 1, 0):
        assert torch.equal(epoch_of(dataset)[0], seen(VIEWS, epoch))
    dataset.set_epoch(7)
    assert torch.equal(epoch_of(dataset)[0], seen(VIEWS, 1))


@pytest.mark.parametrize("options", [{"views": 2}, {"train": False}, {"view": None}, {"views": 2, "labels": "logits"}])
def test_kept_label_is_made_once_and_the_same_for_all_who_ask(
    options: dict[str, Any], archive: Path, asked: list[int]
) -> None:
    dataset = HelloDataset(archive, **options)
    ways = [
        lambda: torch.cat([labels.to("cpu") for _, labels in DataLoader(dataset, 7)]),
        lambda: torch.cat([labels.to("cpu") for _, labels in DataLoader(dataset, 3, num_workers=1)]),
        lambda: torch.cat([labels for _, labels in HelloLoader(dataset, 6)]),
        lambda: torch.stack([label.to("cpu") for _, label in dataset]),
    ]
    dataset.set_epoch(0)
    first = ways[0]()
    assert sum(asked) == COUNT
    for way in ways:
        assert torch.equal(way(), first)
    assert sum(asked) == COUNT


def test_kept_labels_are_exact_to_half_precision(
    archive: Path, seen: Callable[..., Tensor], projector: Projector
) -> None:
    dataset = HelloDataset(archive, views=3)
    for epoch in range(6):
        _, labels = epoch_of(dataset)
        assert labels.dtype == torch.float32
        assert torch.allclose(labels, soft(projector, seen(VIEWS, epoch % 3)), atol=HALF)


def test_views_without_repetition_are_made_each_time(archive: Path, asked: list[int]) -> None:
    dataset = HelloDataset(archive)
    dataset.set_epoch(0)
    epoch_of(dataset), epoch_of(dataset)
    assert sum(asked) == 2 * COUNT


def test_hard_labels_repeat_their_views_too(archive: Path, seen: Callable[..., Tensor]) -> None:
    dataset = HelloDataset(archive, views=1, labels="hard", normalize=False)
    images = [epoch_images for epoch_images, _ in (next(iter(DataLoader(dataset, COUNT))) for _ in range(2))]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], seen(replace(VIEWS, mix="none"), 0))


def test_options_travel_to_workers(archive: Path, pixels: Tensor) -> None:
    copied = pickle.loads(pickle.dumps(HelloDataset(archive, view=None, normalize=False)))
    assert torch.equal(copied[3][0], pixels[3])
    assert copied.view is None


@pytest.mark.parametrize("options", [{"view": None}, {"train": False}])
def test_views_that_are_not_mixed_anyway_may_be_asked_not_to_be(options: dict[str, Any], archive: Path) -> None:
    asked, plain = HelloDataset(archive, mix="none", **options), HelloDataset(archive, **options)
    assert torch.equal(asked.batch([0, 1])[0], plain.batch([0, 1])[0])
    assert torch.equal(asked.batch([0, 1])[1], plain.batch([0, 1])[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "views is 0, expected 1"),
        ({"views": 2.5}, r"views is 2\.5, expected .* as an int"),
        ({"views": True}, "views is True, expected .* as an int"),
        ({"views": 2, "view": None}, "views=2 belongs to drawn views"),
        ({"views": 2, "train": False}, "views=2 belongs to drawn views"),
        ({"mix": "mixup", "view": None}, "belongs to views that are drawn"),
        ({"mix": "cutmix", "train": False}, "belongs to views that are drawn"),
        ({"mix": "cutmix", "labels": "hard"}, "one class cannot name a mixture"),
        ({"mix": "blend"}, "mix is 'blend', expected one of none, cutmix, mixup"),
        ({"view": "centre"}, "view is 'centre', expected"),
        ({"view": Views(size=8, shuffle=5)}, "image side 16 is not divisible by shuffle 5"),
    ],
)
def test_option_without_a_meaning_is_refused(options: dict[str, Any], message: str, archive: Path) -> None:
    with pytest.raises(OptionError, match=message):
        HelloDataset(archive, **options)


VIEWS_OF_HEADERS: list[Any] = [
    {"size": 8},
    {"size": 4096, "scale": ["0.0001", "1"], "flip": False, "shuffle": 4, "mix": "mixup", "x-mine": 1},
    {"size": 8, "scale": ["1", "1"], "shuffle": 8},
    {},
    {"size": 0},
    {"size": 4097},
    {"size": True},
    {"size": "8"},
    {"size": 8, "scale": ["0", "1"]},
    {"size": 8, "scale": ["0.5", "0.4"]},
    {"size": 8, "scale": ["0.5", "1.1"]},
    {"size": 8, "scale": ["0.5"]},
    {"size": 8, "scale": [0, 1]},
    {"size": 8, "scale": ["0.5", "1.0000000000000000000000001"]},
    {"size": 8, "flip": 1},
    {"size": 8, "flip": None},
    {"size": 8, "shuffle": 0},
    {"size": 8, "shuffle": 5},
    {"size": 8, "shuffle": 24},
    {"size": 8, "mix": "puzzle"},
    {"size": 8, "color": "red"},
]


@pytest.mark.parametrize("views", VIEWS_OF_HEADERS, ids=str)
@pytest.mark.parametrize("minor", [9, 10])
def test_rule_of_views_is_refused_where_the_reference_refuses_it(views: Any, minor: int, archive: Path) -> None:
    with Archive.open(archive) as opened:
        header = replace(opened.header, format=f"hello/0.{minor}", views=views)
    found = []
    for check in (
        lambda: read_views(header, "x"),
        lambda: reference.check_views(views, minor, header.images.height, header.images.width),
    ):
        try:
            check()
            found.append("")
        except (FormatError, reference.RefusedError) as error:
            found.append(str(error)[-5:])
    assert found in (["", ""], ["[H23]", "[H23]"])
