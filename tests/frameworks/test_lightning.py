"""Lightning's Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from hellods import HelloDataset, HelloLoader

from .conftest import Witness

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own, and its advice


@pytest.mark.parametrize(
    "load",
    [
        lambda dataset: DataLoader(dataset, 5, shuffle=True),
        lambda dataset: DataLoader(dataset, 5, shuffle=True, num_workers=2, persistent_workers=True),
        lambda dataset: HelloLoader(dataset, 5, shuffle=True),
    ],
    ids=["DataLoader", "DataLoader with workers", "HelloLoader"],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_trainer(
    precision: str,
    load: Callable[[HelloDataset], Any],
    archive: Path,
    witness: Witness,
    student: nn.Module,
    learns: Callable[[], None],
) -> None:
    class Student(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = student

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            witness(images, labels)
            return cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", precision=precision, accumulate_grad_batches=2, log_every_n_steps=1, **quiet
    )
    trainer.fit(Student(), load(HelloDataset(archive)))
    learns()
