"""Time whole epochs of a ResNet-18 student at 224 px: fresh labels, kept labels, labels read from files, hard labels.

    python tests/benchmarks/loading_epoch.py --folder WORK

Files are as FKD and SRe2L store labels: for each batch the crops, the flips and float16 probabilities, here as tensors
alone, so that reading runs no code; the images are JPEG files that workers decode. Kept labels are those of views=10
after the tenth epoch. All see views of one rule, unmixed. Fresh labels are made by a projector on `hello-tiny`, which
sees 64 px, and by one on a MobileNetV2 of 224 px, compiled and not; where students learn in bfloat16, once more in
that. An epoch is compared with that of hard labels in the same turn; the same loaders without a student tell what
labels cost by themselves.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as vision
from common import shared
from loading_data import SIDE, VIEWS, alternate, archive, folder, keeps, made, parser, record_on, wait
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from hellods import HelloDataset, HelloLoader
from hellods.device import training_dtype
from hellods.labels.config import Precision
from hellods.teachers.scale import MEAN, STD
from hellods.views.draw import draw

PERIOD = 10  # views, where labels are kept
BATCH, COUNT = {"cpu": 32, "cuda": 128}, {"cpu": 96, "cuda": 10_000}


class Stored(Dataset[tuple[Tensor, Tensor]]):
    """Batches whose views and labels stand in files, one each."""

    def __init__(self, files: Path, batches: Path) -> None:
        self.images = sorted(map(str, files.glob("*/*")), key=lambda name: Path(name).name)
        self.batches = sorted(map(str, batches.iterdir()))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        stored = torch.load(self.batches[number], weights_only=True)
        rows = zip(stored["index"].tolist(), stored["box"].tolist(), stored["flip"].tolist(), strict=True)
        return torch.stack([self.view(*row) for row in rows]), stored["labels"].float()

    def view(self, index: int, box: list[int], flip: int) -> Tensor:
        crop = vision.resized_crop(Image.open(self.images[index]).convert("RGB"), *box, [SIDE, SIDE])
        return vision.normalize(vision.to_tensor(vision.hflip(crop) if flip else crop), MEAN, STD)


def stored(path: Path, batch: int) -> Path:
    """Return a folder with the views and labels of an archive's first epoch, a file for each batch."""

    def fill(place: Path) -> None:
        dataset = HelloDataset(path)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
        for number, indices in enumerate(torch.split(order, batch)):
            drawn = draw(VIEWS, (SIDE, SIDE), len(dataset), 0, 0, indices)
            dataset.set_epoch(0)
            _, labels = dataset.batch(indices.tolist())
            values = {"index": indices, "box": drawn.box, "flip": drawn.flip, "labels": labels.half()}
            torch.save(values, place / f"{number:05}.pt")

    return made(path.with_suffix(f".labels{batch}"), fill)


def loaders(
    path: Path, fresh: Mapping[str, HelloDataset], device: torch.device, batch: int
) -> dict[str, Callable[[], Iterable[Any]]]:
    """Return, by kind of label, what returns the batches of an epoch."""
    kept = HelloDataset(path, views=PERIOD)
    reader = DataLoader(
        Stored(folder(path), stored(path, batch)),
        batch_size=None,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )

    def ours(dataset: HelloDataset) -> HelloLoader:
        return HelloLoader(dataset, batch, shuffle=True, device=device)

    loaders = {"hard": ours(HelloDataset(path, labels="hard")), "kept": ours(kept)}
    loaders |= {name: ours(dataset) for name, dataset in fresh.items()} | {"files": reader}
    for name, loader in loaders.items():  # images decoded, labels made, workers started
        for _ in range(PERIOD if name == "kept" else 1):
            for _ in loader:
                pass
    return {name: loader.__iter__ for name, loader in loaders.items()}


class Student:
    """A ResNet-18 that learns from batches, in bfloat16 on a GPU that has it."""

    def __init__(self, classes: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device, self.dtype = device, training_dtype(device)
        self.network: nn.Module = resnet18(num_classes=classes).to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)

    def learn(self, images: Tensor, labels: Tensor) -> None:
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = F.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def pass_by(self, images: Tensor, labels: Tensor) -> None:
        """Take a batch and learn nothing."""
        images.to(self.device, non_blocking=True)
        labels.to(self.device, non_blocking=True)


def arithmetic(device: torch.device) -> str:
    """Return what is added to the name of a result where students learn in bfloat16, and where a CPU's matrix units do.

    These are ten times as fast as its other units, so each has results of its own.
    """
    if training_dtype(device) == torch.float32:
        return ""
    return "_amx" if device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16") else "_bf16"


def operations(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of a call; fused attention would not be counted."""
    torch.backends.mha.set_fastpath_enabled(False)
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def main() -> None:
    options = parser(__doc__)
    keeps(options)
    options.add_argument("--count", type=int, help=f"images; by default {COUNT}")
    options.add_argument("--batch", type=int, help=f"by default {BATCH}")
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    batch = chosen.batch or BATCH[device.type]
    count = chosen.count or COUNT[device.type]
    path = archive(chosen.folder, count)
    dataset = HelloDataset(path)
    given = f"local-dir:{shared() / 'data' / 'clip' / 'mobilenetv2-in1k'}"
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if training_dtype(device) == torch.bfloat16 else ("fp32",)
    fresh = {"fresh, hello-tiny": dataset}
    for precision in precisions:
        larger = archive(chosen.folder, count, base=given, precision=precision)
        for way, compile in (("", False), (", compiled", True)):
            fresh[f"fresh, mobilenetv2-in1k, {precision}{way}"] = HelloDataset(larger, base=given, compile=compile)
    epochs = loaders(path, fresh, device, batch)
    student = Student(len(dataset.classes), device)
    images, labels = dataset.batch([0], device)

    def timed(batches: Callable[[], Iterable[Any]], use: Callable[[Tensor, Tensor], None]) -> Callable[[], float]:
        def once() -> float:
            wait(device)
            start = time.perf_counter()
            for batch in batches():
                use(*batch)
            wait(device)
            return time.perf_counter() - start

        return once

    ways = {name: timed(batches, student.learn) for name, batches in epochs.items()}
    alone = {f"{name}, no student": timed(batches, student.pass_by) for name, batches in epochs.items()}
    ways["hard"]()  # the first steps of a student are longer
    found = alternate(ways | alone, chosen.turns)
    middle = {name: median(values) for name, values in found.items()}
    ratios = {name: [a / b for a, b in zip(found[name], found["hard"], strict=True)] for name in ways}
    idle = middle["hard, no student"]
    learning = operations(lambda: student.learn(images.expand(2, -1, -1, -1), labels.expand(2, -1))) // 2
    view = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8, device=device)
    counted = {name: one for name, one in fresh.items() if "compiled" not in name}  # whose operations are not torch's
    labelling = {name: operations(lambda maker=one.label_maker: maker(view)) for name, one in counted.items()}
    result = {
        "images": len(dataset),
        "batch": batch,
        "bytes_of_label_files": sum(file.stat().st_size for file in stored(path, batch).iterdir()),
        "operations_an_image": {"student": learning} | labelling,
        "times_hard_by_operations": {name: round(1 + value / learning, 3) for name, value in labelling.items()},
        "seconds": {name: [round(value, 3) for value in values] for name, values in found.items()},
        "times_hard_quartiles": {name: [round(q, 3) for q in quantiles(values)] for name, values in ratios.items()},
        "times_hard_without_student": {
            name: round(1 + (middle[f"{name}, no student"] - idle) / middle["hard"], 3) for name in ways
        },
    }
    record_on(device, f"loading_epoch{arithmetic(device)}", result)


if __name__ == "__main__":
    main()
