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

from .conftest import Witness, make_student

lightning = pytest.importorskip("lightning")
ModelCheckpoint = pytest.importorskip("lightning.pytorch.callbacks").ModelCheckpoint
pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own, and its advice


QUIET = {"logger": False, "enable_progress_bar": False, "log_every_n_steps": 1, "accelerator": "cpu"}


class Student(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, network: nn.Module, witness: Witness) -> None:
        super().__init__()
        self.network, self.witness = network, witness

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        self.witness(images, labels)
        return cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("loss", cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


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
    trainer = lightning.Trainer(
        max_epochs=2, precision=precision, accumulate_grad_batches=2, enable_checkpointing=False, **QUIET
    )
    trainer.fit(Student(student, witness), load(HelloDataset(archive)))
    learns()


@pytest.mark.parametrize(
    "when",
    [{"every_n_train_steps": 4}, {"every_n_train_steps": 6}, {"every_n_epochs": 1, "save_on_train_epoch_end": True}],
    ids=["last step", "mid epoch", "epoch end"],
)
def test_resumed_trainer_shows_what_is_left(
    when: dict[str, Any], archive: Path, tmp_path: Path, witness: Witness
) -> None:
    def fit(saved: Path | None = None) -> list[tuple[int, int]]:
        saves = [ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **when)] if saved is None else []
        trainer = lightning.Trainer(max_epochs=3, callbacks=saves, enable_checkpointing=saved is None, **QUIET)
        loader = HelloLoader(HelloDataset(archive), 5, shuffle=True)
        witness.seen = []
        trainer.fit(Student(make_student(), witness), loader, ckpt_path=saved)
        return witness.seen

    whole = fit()
    assert witness.saw_all_images_in_epochs(3)
    saved = {int(path.stem.removeprefix("step=")): path for path in tmp_path.glob("*.ckpt")}
    assert len(saved) > 1
    for step, path in saved.items():
        assert fit(path) == whole[5 * step :]


@pytest.mark.parametrize("workers", [0, 2])
def test_epoch_of_a_data_set_is_set_when_an_epoch_starts(workers: int, archive: Path, witness: Witness) -> None:
    dataset = HelloDataset(archive)

    class Told(Student):
        def on_train_epoch_start(self) -> None:
            dataset.set_epoch(2 * self.current_epoch)

    trainer = lightning.Trainer(max_epochs=3, enable_checkpointing=False, **QUIET)
    trainer.fit(Told(make_student(), witness), DataLoader(dataset, 5, shuffle=True, num_workers=workers))
    assert [epoch for epoch, _ in witness.seen] == [0] * 20 + [2] * 20 + [4] * 20


def test_trainer_validates_on_either_loader(archive: Path, witness: Witness, student: nn.Module) -> None:
    dataset = HelloDataset(archive, train=False)
    trainer = lightning.Trainer(enable_checkpointing=False, **QUIET)
    found = [trainer.validate(Student(student, witness), load(dataset, 5)) for load in (DataLoader, HelloLoader)]
    assert found[0][0]["loss"] == pytest.approx(found[1][0]["loss"])
