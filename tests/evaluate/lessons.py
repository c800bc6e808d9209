"""Lessons of a few small images, for students and what feeds them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hellods.evaluate.feed import Lesson
from hellods.evaluate.presets import Protocol, resolve
from hellods.sources.source import Pixels
from hellods.views.rule import Views

SIDE, CLASSES, COUNT = 8, 3, 14
NAMES = ("a", "b", "c")


def random_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images whose brightest channel is their class, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % CLASSES
    images = torch.randint(0, 120, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    images[torch.arange(count), targets] += 100
    return images, targets


def brightness(images: Tensor) -> Tensor:
    """Label by the brightness of the channels."""
    return images.float().mean((2, 3)) / 30


def lesson(
    labels: Callable[[Tensor], Tensor] | None = brightness, views: dict[str, Any] | None = None, **knobs: Any
) -> Lesson:
    images, targets = random_images(COUNT, 0)
    held, theirs = random_images(31, 1)
    rule = Views(**({"size": SIDE, "scale": (0.3, 1.0), "mix": "cutmix"} | (views or {})))
    settings: dict[str, Any] = {"student": "convnet3", "epochs": 3, "batch_size": 5} | knobs
    protocol, rule = resolve(Protocol(**settings), rule, COUNT, CLASSES)
    return Lesson(
        pixels=images.__getitem__,
        side=SIDE,
        targets=targets,
        views=rule,
        labels=labels,
        protocol=protocol,
        steps=3,
        held_out=Pixels("held out", NAMES, theirs.tolist(), held),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        teacher=brightness,
    )
