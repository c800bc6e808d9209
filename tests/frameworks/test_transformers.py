"""Hugging Face's Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from hellods import HelloDataset

from .conftest import Witness

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")  # the Trainer's own


def named(samples: list[Any]) -> dict[str, Any]:
    images, labels = default_collate(samples)
    return {"images": images, "labels": labels}


class Student(nn.Module):
    def __init__(self, network: nn.Module, witness: Witness) -> None:
        super().__init__()
        self.network, self.witness = network, witness

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.witness(images, labels)
        logits = self.network(images)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("workers", [0, 2])
def test_trainer(
    workers: int, archive: Path, tmp_path: Path, witness: Witness, student: nn.Module, learns: Callable[[], None]
) -> None:
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=5,
        learning_rate=0.01,
        gradient_accumulation_steps=2,
        dataloader_num_workers=workers,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    trainer = transformers.Trainer(
        Student(student, witness), arguments, named, HelloDataset(archive), optimizers=(optimizer, None)
    )
    trainer.train()
    learns()
