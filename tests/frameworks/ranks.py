"""One rank of test_distributed.py: torchrun starts it with a framework, an archive and a file, {} being its rank."""

import sys
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, default_collate

from hellods import HelloDataset, HelloLoader

EPOCHS = range(3, 5)  # of the loops that name them, as in a training that was resumed
Found = dict[str, dict[str, Any]]  # by loader, what this rank saw and the student that it learned


def make_student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def plain(archive: str) -> Found:
    early = HelloLoader(HelloDataset(archive), 5, shuffle=True)  # as a script for Lightning's Trainer makes it
    torch.distributed.init_process_group("gloo")
    found = {}
    for kind in ("DataLoader", "HelloLoader"):
        student = DistributedDataParallel(make_student())
        optimizer = torch.optim.Adam(student.parameters(), lr=0.001)
        dataset, seen = HelloDataset(archive), []
        loader = DataLoader(dataset, 5, sampler=DistributedSampler(dataset)) if kind == "DataLoader" else early
        for epoch in EPOCHS:
            if kind == "DataLoader":
                loader.sampler.set_epoch(epoch)
                dataset.set_epoch(epoch)
            else:
                loader.set_epoch(epoch)
            for images, labels in loader:
                labels = labels.to("cpu")
                loss = cross_entropy(student(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen.append((images, labels))
        found[kind] = {"seen": seen, "student": student.module.state_dict()}
    return found


def accelerate(archive: str) -> Found:
    from accelerate import Accelerator, DataLoaderConfiguration

    found = {}
    for dispatch in (False, True):
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
        student, dataset, seen = make_student(), HelloDataset(archive), []
        optimizer = torch.optim.Adam(student.parameters(), lr=0.001)
        loader = DataLoader(dataset, 5, shuffle=True)
        student, optimizer, loader = accelerator.prepare(student, optimizer, loader)
        for epoch in EPOCHS:
            dataset.set_epoch(epoch)
            loader.set_epoch(epoch)
            for images, labels in loader:
                labels = labels.to("cpu")
                accelerator.backward(cross_entropy(student(images), labels))
                optimizer.step()
                optimizer.zero_grad()
                seen.append((images, labels))
        name = "dispatched" if dispatch else "sharded"
        found[name] = {"seen": seen, "student": accelerator.unwrap_model(student).state_dict()}
    return found


def trainer(archive: str) -> Found:
    import lightning

    class Student(lightning.LightningModule):
        def __init__(self, dataset: HelloDataset) -> None:
            super().__init__()
            self.network, self.dataset, self.seen = make_student(), dataset, []

        def on_train_epoch_start(self) -> None:
            if isinstance(self.trainer.train_dataloader, DataLoader):
                self.dataset.set_epoch(self.current_epoch)  # that of a HelloLoader is set by Lightning

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            self.seen.append(batch)
            return cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.001)

    found = {}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    for kind in ("DataLoader", "HelloLoader"):
        dataset = HelloDataset(archive)
        student = Student(dataset)
        load: Callable[..., Any] = DataLoader if kind == "DataLoader" else HelloLoader
        fit = lightning.Trainer(max_epochs=len(EPOCHS), accelerator="cpu", devices=2, strategy="ddp", **quiet).fit
        fit(student, load(dataset, 5, shuffle=True))
        found[kind] = {"seen": student.seen, "student": student.network.state_dict()}
    return found


def transformers(archive: str) -> Found:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class SetEpoch(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            dataset.set_epoch(int(state.epoch))

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.seen = make_student(), []

        def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            self.seen.append((images, labels))
            return {"loss": cross_entropy(self.network(images), labels)}

    found = {}
    for workers in (0, 1):
        dataset, student = HelloDataset(archive), Student()
        with TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                num_train_epochs=len(EPOCHS),
                per_device_train_batch_size=5,
                learning_rate=0.001,
                dataloader_num_workers=workers,
                dataloader_persistent_workers=bool(workers),
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
            )
            Trainer(student, arguments, named, dataset, callbacks=[SetEpoch()]).train()
        name = "with workers" if workers else "without workers"
        found[name] = {"seen": student.seen, "student": student.network.state_dict()}
    return found


def named(samples: list[Any]) -> dict[str, Any]:
    images, labels = default_collate(samples)
    return {"images": images, "labels": labels}


FRAMEWORKS: Mapping[str, Callable[[str], Found]] = {
    "plain": plain,
    "accelerate": accelerate,
    "lightning": trainer,
    "transformers": transformers,
}


def main(framework: str, archive: str, file: str) -> None:
    found = FRAMEWORKS[framework](archive)
    torch.save(found, file.format(torch.distributed.get_rank()))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
