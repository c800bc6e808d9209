"""Time a student of `hellods evaluate` against the loop that RDED's users write: views one at a time, labels as they come.

    python tests/benchmarks/student_time.py cifar10.hello cifar10/

Both train a ConvNet-3 on the archive's images with the labels of shared/data/teachers/cifar_resnet.py:cifar10_resnet20
for as many epochs, in turns; the plain loop is torchvision's transforms in a DataLoader, CutMix of each batch, float32.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from common import record, shared
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from hellods.data.options import archived
from hellods.distill.sources import open_source
from hellods.distill.teacher import Teacher, load_teacher
from hellods.evaluate.presets import Protocol, resolve
from hellods.evaluate.student import Lesson, learn
from hellods.format.archive import Archive
from hellods.nets import create

EPOCHS, TURNS = 30, 3
CPU = torch.device("cpu")


class Plain(Dataset[Tensor]):
    def __init__(self, images: list[Image.Image], least: float, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.images = images
        self.view = v2.Compose(
            [
                v2.RandomResizedCrop(32, scale=(least, 1)),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        view: Tensor = self.view(self.images[index])
        return view


def plain(images: list[Image.Image], lesson: Lesson, teacher: Teacher) -> float:
    """Return the seconds that the plain loop takes."""
    protocol = lesson.protocol
    network = create("convnet3", 10, 32, seed=0).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    dataset = Plain(images, lesson.views.scale[0], lesson.mean, lesson.std)
    temperature = protocol.temperature or 1.0
    start = time.monotonic()
    for _ in range(EPOCHS):
        for views in DataLoader(dataset, protocol.batch_size, shuffle=True):
            share = float(np.random.beta(1.0, 1.0))
            side = round(32 * (1 - share) ** 0.5)
            top, left = (int(np.random.randint(0, 33 - side)) for _ in range(2))
            other = views[torch.randperm(len(views))]
            views[:, :, top : top + side, left : left + side] = other[:, :, top : top + side, left : left + side]
            with torch.no_grad():
                labels = F.softmax(teacher.network(views) / temperature, dim=1)
            value = F.kl_div(F.log_softmax(network(views) / temperature, dim=1), labels, reduction="batchmean")
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path, help="CIFAR-10 as image folders train/ and val/")
    options = parser.parse_args()
    with Archive.open(options.archive) as opened:
        header, pixels = opened.header, opened.pixels()
    place = shared() / "data" / "teachers"
    weights = str(place / "cifar10_resnet20.safetensors")
    facts = header.images
    teacher = load_teacher(
        f"{place / 'cifar_resnet.py'}:cifar10_resnet20", weights, facts.mean, facts.std, header.classes, facts.height
    )
    _, held_out = open_source(str(options.folder), seed=0)
    count, classes = facts.count, len(header.classes)
    protocol, views = resolve(Protocol(epochs=EPOCHS), archived(header, str(options.archive)), count, classes)
    images = torch.tensor(pixels).permute(0, 3, 1, 2).contiguous()
    lesson = Lesson(
        pixels=images.__getitem__,
        side=facts.height,
        targets=torch.arange(classes).repeat_interleave(count // classes),
        views=views,
        labels=teacher,
        protocol=protocol,
        steps=-(-count // (protocol.batch_size or 1)),
        held_out=held_out,
        mean=facts.mean,
        std=facts.std,
    )

    def ours(precision: torch.dtype) -> float:
        seconds = learn(lesson, 0, CPU, precision).seconds
        return seconds["views"] + seconds["labels"] + seconds["student"]

    pictures = [Image.fromarray(image) for image in pixels]
    found: dict[str, list[float]] = {"plain loop, fp32": [], "learn, fp32": [], "learn, bf16": []}
    plain(pictures, lesson, teacher)  # the first time is longer
    for _ in range(TURNS):
        found["plain loop, fp32"].append(plain(pictures, lesson, teacher))
        found["learn, fp32"].append(ours(torch.float32))
        found["learn, bf16"].append(ours(torch.bfloat16))
    seconds = {name: [round(value, 3) for value in values] for name, values in found.items()}
    ratios = {name: round(median(found["plain loop, fp32"]) / median(values), 2) for name, values in found.items()}
    record("student_time", {"views": EPOCHS * count, "seconds": seconds, "times_as_fast": ratios})


if __name__ == "__main__":
    main()
