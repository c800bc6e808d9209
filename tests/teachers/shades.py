"""Images of one brightness each, and a teacher that tells the brightnesses apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellods.sources.source import Pixels
from hellods.teachers.teacher import Teacher
from hellods.teachers.training import Training

CLASSES = tuple("abcdefghij")


class Shade(nn.Module):
    """Answers with the tenth of the brightness that the image's mean lies in: logits, no probabilities."""

    def __init__(self, order: Tensor | None = None) -> None:
        super().__init__()
        self.order = torch.arange(10) if order is None else order

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot(self.order[(images.mean((1, 2, 3)) * 10).long().clamp(0, 9)], 10).float() * 2


def teacher(network: nn.Module | None = None, **options: object) -> Teacher:
    plain = {"architecture": "shade", "mean": (0, 0, 0), "std": (1, 1, 1)} | options
    return Teacher(network or Shade(), **plain)  # type: ignore[arg-type]


def training(epochs: int, **knobs: object) -> Training:
    """Return how a small network is trained, by default to its last epoch."""
    plain = {"architecture": "convnet3", "side": 8, "seed": 0, "epochs": epochs, "stages": (epochs,)} | knobs
    return Training(**plain)  # type: ignore[arg-type]


def shades(images: int, wrong: float = 0.0) -> Pixels:
    """Return plain images, `images` of each of ten brightnesses, a share of them with the next class's target."""
    targets = torch.arange(10).repeat_interleave(images)
    pixels = (targets * 25.6 + 12).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    noisy = torch.arange(len(targets)) % images < wrong * images
    return Pixels("shades", CLASSES, torch.where(noisy, (targets + 1) % 10, targets).tolist(), pixels)
