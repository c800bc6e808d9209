"""Hugging Face Accelerate."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from hellods import HelloDataset

from .conftest import Witness

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("default")  # Accelerate's own


@pytest.fixture(autouse=True)
def _state() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dispatch", [False, True], ids=["sharded", "dispatched"])
def test_prepared_loop(
    dispatch: bool, workers: int, archive: Path, witness: Witness, student: nn.Module, learns: Callable[[], None]
) -> None:
    config = accelerate.DataLoaderConfiguration(dispatch_batches=dispatch)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2, dataloader_config=config)
    loader = DataLoader(HelloDataset(archive), 5, shuffle=True, num_workers=workers)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    student, optimizer, loader = accelerator.prepare(student, optimizer, loader)
    for _ in range(2):
        for images, labels in loader:
            with accelerator.accumulate(student):
                loss = cross_entropy(student(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            witness(images, labels)
    learns()
