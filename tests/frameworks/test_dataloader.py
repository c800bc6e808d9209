"""torch's own DataLoader, in every way that it starts workers, and everything that chooses samples for it."""

import multiprocessing
from collections.abc import Callable, Iterable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    WeightedRandomSampler,
    random_split,
)

from hellods import HelloDataset

from .conftest import COUNT, Witness

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")

STARTS = ("fork", "spawn", "forkserver")
FACTORS = ((1, 4), STARTS, (False, True), (False, True), (2, 4))
WORKERS = list(product(*FACTORS))  # workers, start, pinned, persistent, prefetch
PAIRWISE = [
    (1, "fork", False, True, 2),
    (1, "spawn", True, False, 2),
    (1, "forkserver", False, False, 4),
    (4, "fork", True, False, 4),
    (4, "spawn", False, True, 4),
    (4, "forkserver", True, True, 2),
]


@pytest.fixture(scope="module", autouse=True)
def _forkserver_that_has_torch() -> None:
    multiprocessing.set_forkserver_preload(["hellods.data.dataset"])


def test_pairs_hold_every_two_options_together() -> None:
    for one, other in combinations(range(len(FACTORS)), 2):
        assert {(row[one], row[other]) for row in PAIRWISE} == set(product(FACTORS[one], FACTORS[other]))


@pytest.mark.parametrize("pinned", [False, True])
def test_no_workers(pinned: bool, archive: Path, witness: Witness) -> None:
    two_epochs(DataLoader(HelloDataset(archive), 5, shuffle=True, pin_memory=pinned), witness)


@pytest.mark.parametrize(
    ("workers", "start", "pinned", "persistent", "prefetch"),
    [*PAIRWISE, *(pytest.param(*row, marks=pytest.mark.slow) for row in WORKERS if row not in PAIRWISE)],
)
def test_workers(
    workers: int, start: str, pinned: bool, persistent: bool, prefetch: int, archive: Path, witness: Witness
) -> None:
    loader = DataLoader(
        HelloDataset(archive),
        5,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context=start,
        pin_memory=pinned,
        persistent_workers=persistent,
        prefetch_factor=prefetch,
    )
    two_epochs(loader, witness)


def two_epochs(loader: DataLoader, witness: Witness) -> None:
    for _ in range(2):
        for images, labels in loader:
            witness(images, labels.to("cpu"))
    assert witness.saw_all_images_in_epochs(2)


def weighted(dataset: HelloDataset) -> Iterable[Any]:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(dataset, 4, sampler=WeightedRandomSampler([1.0] * 10 + [3.0] * 10, 12, generator=generator))


def halves(dataset: HelloDataset) -> Iterable[Any]:
    parts = random_split(dataset, [0.5, 0.5], torch.Generator().manual_seed(0))
    return (batch for part in parts for batch in DataLoader(part, 5))


CHOICES: dict[str, tuple[Callable[[HelloDataset], Iterable[Any]], int]] = {
    "Subset": (lambda dataset: DataLoader(Subset(dataset, [3, 17, 4]), 2), 3),
    "ConcatDataset": (lambda dataset: DataLoader(ConcatDataset([dataset, dataset]), 5, shuffle=True), 2 * COUNT),
    "ConcatDataset of Subset": (lambda dataset: DataLoader(ConcatDataset([Subset(dataset, [9]), dataset])), 1 + COUNT),
    "random_split": (halves, COUNT),
    "WeightedRandomSampler": (weighted, 12),
    "batch sampler": (
        lambda dataset: DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 6, drop_last=True)),
        18,
    ),
    "sampler of batches": (
        lambda dataset: DataLoader(
            dataset, batch_size=None, sampler=RandomSampler(dataset, replacement=True, num_samples=7)
        ),
        7,
    ),
    "batches given as lists": (lambda dataset: DataLoader(dataset, batch_sampler=[[0, 1], [19], [1, 0, 5]]), 6),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_samples_that_are_chosen(choice: str, archive: Path, witness: Witness) -> None:
    make, number = CHOICES[choice]
    for images, labels in make(HelloDataset(archive)):
        many = images.ndim == 4
        witness(images if many else images[None], labels.to("cpu") if many else labels.to("cpu")[None])
    assert len(witness.seen) == number
    assert len(set(witness.seen)) == number  # an image that is drawn twice shows another view
