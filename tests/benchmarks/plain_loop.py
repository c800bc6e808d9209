"""Set `hellods evaluate` beside the loop that RDED's users write: is it faster, and does the student learn as much?

    python tests/benchmarks/plain_loop.py cifar10.hello cifar10/ --convnet WORK

The plain loop is torchvision's transforms on one image at a time in a DataLoader, CutMix with one box a batch, the
teacher's labels as they come, float32. Both train a ConvNet-3 on the archive's images under RDED's protocol: for a few
epochs, in turns, to be timed; then to the end, under shared/data/teachers/cifar_resnet.py:cifar10_resnet20 and under
what `convnet_teacher.py WORK` trained.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import record, shared
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from hellods.data.options import read_views
from hellods.evaluate.feed import Lesson
from hellods.evaluate.presets import Protocol, resolve
from hellods.evaluate.student import learn
from hellods.format.archive import Archive
from hellods.nets import create
from hellods.sources.source import open_source, squares
from hellods.teachers.teacher import Teacher, load_teacher
from hellods.train import predict

FEW, TURNS = 30, 3  # epochs that are timed, and how often
CPU = torch.device("cpu")


class Plain(Dataset[Tensor]):
    def __init__(self, images: list[Image.Image], lesson: Lesson) -> None:
        self.images = images
        steps = [v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        crop = v2.RandomResizedCrop(lesson.side, scale=lesson.views.scale)
        self.view = v2.Compose([crop, *steps, v2.Normalize(lesson.mean, lesson.std)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        view: Tensor = self.view(self.images[index])
        return view


def cutmix(views: Tensor) -> None:
    """Paste, in place, one box of each other image of the batch."""
    side = views.shape[-1]
    half = int(side * math.sqrt(1 - np.random.beta(1.0, 1.0))) // 2
    y, x = np.random.randint(side), np.random.randint(side)
    box = ..., slice(max(0, y - half), y + half), slice(max(0, x - half), x + half)
    views[box] = views[torch.randperm(len(views))][box]


def plain(images: list[Image.Image], lesson: Lesson, teacher: Teacher) -> tuple[float, float]:
    """Return the seconds that the plain loop takes, and the student's accuracy."""
    torch.manual_seed(0)
    np.random.seed(0)
    epochs, temperature, rate = lesson.protocol.epochs, lesson.protocol.temperature or 1.0, 1e-3
    network = create("convnet3", 10, lesson.side, seed=0).train()
    learned = list(network.parameters())
    groups = [
        {"params": [value for value in learned if value.ndim > 1], "weight_decay": lesson.protocol.weight_decay},
        {"params": [value for value in learned if value.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    dataset = Plain(images, lesson)
    start = time.monotonic()
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * epoch / (2 * epochs)))
        for views in DataLoader(dataset, lesson.protocol.batch_size, shuffle=True):
            cutmix(views)
            with torch.no_grad():
                labels = F.softmax(teacher.network(views) / temperature, dim=1)
            value = F.kl_div(F.log_softmax(network(views) / temperature, dim=1), labels, reduction="batchmean")
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    seconds, held_out = time.monotonic() - start, lesson.held_out
    every = torch.arange(len(held_out))
    seen = (teacher.normalize(squares(held_out, some, lesson.side)) for some in every.split(250))
    return seconds, (predict(network, seen) == held_out.targets).double().mean().item()


def ours(lesson: Lesson, precision: torch.dtype) -> tuple[float, float]:
    """Return the seconds that a student of `hellods evaluate` takes, its checks apart, and its accuracy."""
    outcome = learn(lesson, 0, CPU, precision)
    return sum(outcome.seconds[part] for part in ("views", "labels", "student")), outcome.accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path, help="CIFAR-10 as image folders train/ and val/")
    parser.add_argument("--convnet", type=Path, required=True, metavar="WORK", help="where convnet3.safetensors is")
    options = parser.parse_args()
    with Archive.open(options.archive) as opened:
        header, pixels = opened.header, opened.pixels()
    facts, count, classes = header.images, header.images.count, len(header.classes)
    shown, place = (facts.mean, facts.std, header.classes, facts.height), shared() / "data" / "teachers"
    teachers = {
        "resnet20": load_teacher(
            f"{place / 'cifar_resnet.py'}:cifar10_resnet20", str(place / "cifar10_resnet20.safetensors"), *shown
        ),
        "convnet3": load_teacher("convnet3", str(options.convnet / "convnet3.safetensors"), *shown),
    }
    _, held_out = open_source(str(options.folder), seed=0)
    protocol, views = resolve(Protocol(), read_views(header, str(options.archive)), count, classes)
    images, pictures = torch.tensor(pixels).permute(0, 3, 1, 2).contiguous(), [Image.fromarray(one) for one in pixels]
    whole = Lesson(
        pixels=images.__getitem__,
        side=facts.height,
        targets=torch.arange(classes).repeat_interleave(count // classes),
        views=views,
        labels=teachers["resnet20"],
        protocol=protocol,
        steps=-(-count // (protocol.batch_size or 1)),
        held_out=held_out,
        mean=facts.mean,
        std=facts.std,
    )
    few = replace(whole, protocol=replace(protocol, epochs=FEW))
    found: dict[str, list[float]] = {"plain loop, fp32": [], "evaluate, fp32": [], "evaluate, bf16": []}
    plain(pictures, few, teachers["resnet20"])  # the first time is longer
    for _ in range(TURNS):
        found["plain loop, fp32"].append(plain(pictures, few, teachers["resnet20"])[0])
        found["evaluate, fp32"].append(ours(few, torch.float32)[0])
        found["evaluate, bf16"].append(ours(few, torch.bfloat16)[0])
    accuracy: dict[str, Any] = {
        name: {
            "plain loop, fp32": round(plain(pictures, whole, teacher)[1], 4),
            "evaluate, bf16": ours(replace(whole, labels=teacher), torch.bfloat16)[1],
        }
        for name, teacher in teachers.items()
    }
    seconds = {name: [round(value, 3) for value in values] for name, values in found.items()}
    ratios = {name: round(median(found["plain loop, fp32"]) / median(values), 2) for name, values in found.items()}
    record("plain_loop", {"views": FEW * count, "seconds": seconds, "times_as_fast": ratios, "accuracy": accuracy})


if __name__ == "__main__":
    main()
