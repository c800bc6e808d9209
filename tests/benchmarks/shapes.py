"""Count the bytes of deltas on real shapes: CLIP's RN50 and ViT-B/16, 1,000 classes.

    python tests/benchmarks/shapes.py

Towers have random weights, and deltas are random numbers. The share is of what full soft labels take: float16, for 300
epochs of 200 images a class.
"""

from dataclasses import replace
from typing import Any

import open_clip
import torch
from common import record
from factors import size

from hellods.distill.recipe import RANK, Recipe
from hellods.labels.backbones import Backbone
from hellods.labels.config import Preprocess, ProjectorConfig
from hellods.labels.projector import Projector

CLASSES, EPOCHS, IMAGES_PER_CLASS = 1000, 300, 200
SHAPES: dict[str, dict[str, Any]] = {
    "RN50": {"embed_dim": 1024, "layers": [3, 4, 6, 3], "width": 64, "patch_size": None},
    "ViT-B-16": {"embed_dim": 512, "layers": 12, "width": 768, "patch_size": 16},
}
RANKS = ((RANK, Recipe.head_rank), (8, 64), (8, 128))  # the defaults, HeLlO's for 100 and 1,000 classes


def shape(name: str, ranks: tuple[int, int]) -> dict[str, Any]:
    """Return the bytes of deltas of random numbers, on a tower of random weights."""
    facts = dict(SHAPES[name])
    width = facts.pop("embed_dim")
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    tower = open_clip.CLIP(width, {"image_size": 224, "head_width": 64} | facts, text).visual
    preprocess = Preprocess(side=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = Backbone(
        name=name,
        tower=tower.eval(),
        embed=lambda texts: torch.randn(len(texts), width),
        scale=100.0,
        preprocess=preprocess,
        sha256="",
        quick_gelu=False,
    )
    config = ProjectorConfig(
        base=name,
        base_sha256="",
        quick_gelu=False,
        preprocess=preprocess,
        template="{}",
        descriptions=tuple(map(str, range(CLASSES))),
        encoder_rank=ranks[0],
        head_rank=ranks[1],
    )
    projector = Projector(config, backbone, torch.Generator().manual_seed(0))
    for value in projector.learned().values():
        value.data.normal_()
    count = sum(value.numel() for value in projector.learned().values())
    found: dict[str, Any] = {"base": name, "classes": CLASSES, "ranks": ranks, "numbers": count}
    for quantization in ("fp16", "int8", "int4"):
        projector.config = replace(config, quantization=quantization)
        found[f"bytes_{quantization}"] = size(projector)
    found["share_of_full_labels"] = found["bytes_int4"] / (2 * CLASSES * CLASSES * IMAGES_PER_CLASS * EPOCHS)
    return found


def main() -> None:
    torch.manual_seed(0)
    record("shapes", {"shapes": [shape(name, ranks) for name in SHAPES for ranks in dict.fromkeys(RANKS)]})


if __name__ == "__main__":
    main()
