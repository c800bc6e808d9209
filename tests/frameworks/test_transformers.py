"""Hugging Face's Trainer."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from hellods import HelloDataset

from .conftest import Witness, make_student

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")  # the Trainer's own


def named(samples: list[Any]) -> dict[str, Any]:
    images, labels = default_collate(samples)
    return {"images": images, "labels": labels}


def arguments(folder: Path, **options: Any) -> Any:
    """Return arguments of a Trainer that works on the CPU and tells nobody."""
    return transformers.TrainingArguments(str(folder), report_to=[], disable_tqdm=True, use_cpu=True, **options)


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
    plan = arguments(
        tmp_path,
        num_train_epochs=2,
        per_device_train_batch_size=5,
        learning_rate=0.01,
        gradient_accumulation_steps=2,
        dataloader_num_workers=workers,
        save_strategy="no",
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    trainer = transformers.Trainer(
        Student(student, witness), plan, named, HelloDataset(archive), optimizers=(optimizer, None)
    )
    trainer.train()
    learns()


def readme(text: str, **names: Any) -> dict[str, Any]:
    """Return what the block of the README that has this text defines."""
    document = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    exec(next(code for code in re.findall(r"```python\n(.*?)```", document, re.DOTALL) if text in code), names)
    return names


@pytest.mark.parametrize("step", [2, 4, 6])
def test_resumed_trainer_shows_what_is_left_by_the_callback_that_the_readme_gives(
    step: int, archive: Path, tmp_path: Path, witness: Witness
) -> None:
    plan = arguments(
        tmp_path,
        num_train_epochs=3,
        per_device_train_batch_size=5,
        save_steps=2,
    )

    def fit(saved: str | None) -> list[tuple[int, int]]:
        dataset = HelloDataset(archive)
        callback = readme("class SetEpoch", dataset=dataset)["SetEpoch"]()
        witness.seen = []
        student = Student(make_student(), witness)
        trainer = transformers.Trainer(student, plan, named, dataset, callbacks=[callback])
        trainer.train(resume_from_checkpoint=saved)
        return witness.seen

    whole = fit(None)
    assert witness.saw_all_images_in_epochs(3)
    assert fit(str(tmp_path / f"checkpoint-{step}")) == whole[5 * step :]


@pytest.mark.parametrize("steps", [1, 4])
def test_model_of_transformers_learns_by_the_collator_and_the_loss_that_the_readme_gives(
    steps: int, archive: Path, tmp_path: Path
) -> None:
    dataset = HelloDataset(archive, train=False, temperature=4)
    given = readme("def soft_loss", cross_entropy=cross_entropy, dataset=dataset)
    side, classes = dataset[0][0].shape[-1], len(dataset.classes)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=side, patch_size=side // 2, num_labels=classes, **sizes)
    plan = arguments(
        tmp_path,
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=len(dataset) // steps,
        gradient_accumulation_steps=steps,
        logging_steps=1,
        save_strategy="no",
    )
    model = transformers.ViTForImageClassification(config)
    trainer = transformers.Trainer(
        model, plan, given["collate"], dataset, eval_dataset=dataset, compute_loss_func=given["soft_loss"]
    )
    trainer.train()
    images, labels = dataset.batch(range(len(dataset)))
    with torch.no_grad():
        expected = cross_entropy(model(images).logits / 4, labels).item()
    assert expected == pytest.approx(math.log(classes), abs=0.2)  # of no knowledge; the model's own loss is log 2
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-3)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-3)
