"""A loop of one's own, with what people put into it."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import CutMix, MixUp

from hellods import HelloDataset, HelloLoader

from .conftest import Witness

LOADERS: dict[str, Callable[[HelloDataset], DataLoader | HelloLoader]] = {
    "DataLoader": lambda dataset: DataLoader(dataset, 5, shuffle=True),
    "DataLoader with workers": lambda dataset: DataLoader(dataset, 5, shuffle=True, num_workers=2),
    "HelloLoader": lambda dataset: HelloLoader(dataset, 5, shuffle=True),
}


def train(
    loader: DataLoader | HelloLoader,
    student: nn.Module,
    witness: Witness,
    *,
    autocast: bool = False,
    accumulate: int = 1,
) -> None:
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    for _ in range(2):
        for step, (images, labels) in enumerate(loader, 1):
            labels = labels.to("cpu")
            with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                loss = cross_entropy(student(images), labels)
            (loss / accumulate).backward()
            if step % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
            witness(images, labels)


@pytest.mark.parametrize("loader", LOADERS)
def test_plain_loop(
    loader: str, archive: Path, witness: Witness, student: nn.Module, learns: Callable[[], None]
) -> None:
    train(LOADERS[loader](HelloDataset(archive)), student, witness)
    learns()


@pytest.mark.parametrize("loader", LOADERS)
def test_autocast_and_gradient_accumulation(
    loader: str, archive: Path, witness: Witness, student: nn.Module, learns: Callable[[], None]
) -> None:
    train(LOADERS[loader](HelloDataset(archive)), student, witness, autocast=True, accumulate=2)
    learns()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_student(
    backend: str, archive: Path, witness: Witness, student: nn.Module, learns: Callable[[], None]
) -> None:
    train(HelloLoader(HelloDataset(archive), 5), torch.compile(student, backend=backend, fullgraph=True), witness)
    learns()


def test_loss_that_is_compiled_with_the_student(archive: Path, witness: Witness, student: nn.Module) -> None:
    step = torch.compile(lambda images, labels: cross_entropy(student(images), labels), backend="aot_eager")
    ((images, labels),) = DataLoader(HelloDataset(archive), 20)
    assert step(images, labels.to("cpu")).item() == pytest.approx(witness.loss(student))


@pytest.mark.parametrize("mix", [CutMix, MixUp])
def test_torchvision_mixes_the_values_after_the_loader(mix: type[nn.Module], archive: Path, witness: Witness) -> None:
    ((images, labels),) = DataLoader(HelloDataset(archive), 20, num_workers=1)
    torch.manual_seed(0)
    mixed = mix()(images, labels)
    torch.manual_seed(0)
    expected = mix()(witness.images[0], witness.labels[0])
    torch.testing.assert_close(mixed[0], expected[0])
    assert torch.allclose(mixed[1], expected[1], atol=1e-5)
    assert not torch.allclose(mixed[1], witness.labels[0], atol=1e-2)
