"""Time labels alone: the merged projector against the bare tower of open_clip, and what a matrix product would take.

    python tests/benchmarks/loading_labels.py

The towers have the shapes of CLIP's published models and random weights, which cost the same. The bare tower is as
open_clip makes it in that precision, or in channels-last as the projector is, and is given normalized pixels;
`autocast` is the one with weights in float32, as a training loop would ask it in bfloat16, and so are the adapters.
All compute in real float32, without TF32, or in bfloat16. The floor is a tower's floating-point operations at the rate
of one large matrix product, the fastest of all that were measured in the same turns.
"""

import copy
from collections.abc import Callable
from statistics import median
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from loading_data import SIDE, alternate, parser, record_on, seconds
from torch import Tensor, nn

from hellods.distill.recipe import RANK, Recipe
from hellods.evaluate.student import flops
from hellods.labels.backbones import Backbone
from hellods.labels.config import Precision, Preprocess, ProjectorConfig
from hellods.labels.precision import DTYPES, exact
from hellods.labels.projector import Projector

CLASSES = 1000
PRODUCT = {"cpu": 2048, "cuda": 8192}  # side of the matrices
BATCH = {"cpu": 16, "cuda": 256}
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def projector(name: str, visual: nn.Module, width: int, precision: Precision = "fp32") -> Projector:
    """Return a projector, not merged, over a copy of a tower whose features have that width."""
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    recipe = Recipe()
    config = ProjectorConfig(
        base=f"given:{name}",
        base_sha256="0" * 64,
        quick_gelu=False,
        preprocess=Preprocess(side=SIDE, mean=mean, std=std),
        template=recipe.template,
        descriptions=tuple(f"class {number}" for number in range(CLASSES)),
        encoder_rank=RANK,
        head_rank=recipe.head_rank,
        precision=precision,
    )

    def embed(texts: Any) -> Tensor:
        return F.normalize(torch.randn(len(texts), width), dim=1)

    backbone = Backbone(
        name=config.base,
        tower=copy.deepcopy(visual),
        embed=embed,
        scale=100.0,
        preprocess=config.preprocess,
        sha256=config.base_sha256,
        quick_gelu=config.quick_gelu,
    )
    return Projector(config, backbone, torch.Generator().manual_seed(0))


def measure(name: str, device: torch.device, batch: int, turns: int) -> tuple[int, dict[str, list[float]]]:
    """Return the operations of one tower for an image, and the seconds of a batch in each way."""
    torch.manual_seed(0)
    bare = {precision: tower(name, precision) for precision in PRECISIONS}
    images = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
    pixels = (images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        width = bare["fp32"](pixels[:1].cpu()).shape[1]
    adapted = projector(name, bare["fp32"], width)
    merged = {precision: projector(name, bare["fp32"], width, precision) for precision in PRECISIONS}
    for network in merged.values():
        network.merge()
    for network in (adapted, *bare.values(), *merged.values()):
        network.to(device)
    last = {precision: copy.deepcopy(bare[precision]).to(memory_format=torch.channels_last) for precision in PRECISIONS}
    head = F.normalize(torch.randn(CLASSES, width, device=device), dim=1)
    operations = flops(merged["fp32"], images[:1])

    def labels(network: nn.Module, shown: Tensor) -> Callable[[], Tensor]:
        return lambda: 100 * F.normalize(network(shown).float(), dim=1) @ head.T

    ways: dict[str, Callable[[], Any]] = {}
    for precision in PRECISIONS:
        side, dtype = PRODUCT[device.type], DTYPES[precision]
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        ways[f"product, {precision}"] = lambda left=left, right=right: left @ right
        shown = pixels.to(dtype)
        ways[f"open_clip, {precision}"] = labels(bare[precision], shown)
        ways[f"channels-last, {precision}"] = labels(last[precision], shown.to(memory_format=torch.channels_last))
        ways[f"merged, {precision}"] = lambda network=merged[precision]: network.label(images)
        ways[f"adapters, {precision}"] = lambda: adapted(images)
    ways["autocast, bf16"] = labels(bare["fp32"], pixels)

    def timed(way: str) -> Callable[[], float]:
        def once() -> float:
            low = way in ("autocast, bf16", "adapters, bf16")
            with torch.no_grad(), exact(device), torch.autocast(device.type, torch.bfloat16, enabled=low):
                return seconds(ways[way], device)

        return once

    return operations, alternate({way: timed(way) for way in ways}, turns)


def tower(name: str, precision: Precision) -> nn.Module:
    model = open_clip.create_model(name, precision=precision, load_weights=False)
    network: nn.Module = model.visual.eval().requires_grad_(False)
    return network


def compared(operations: int, found: dict[str, list[float]], batch: int, rates: dict[str, float]) -> dict[str, Any]:
    """Return what one tower costs in each way, and against open_clip and the floor in the same precision."""
    middle = {way: median(values) for way, values in found.items()}
    floors = {precision: operations / rate for precision, rate in rates.items()}
    return {
        "operations_an_image": operations,
        "floor_images_a_second": {precision: round(1 / floor, 2) for precision, floor in floors.items()},
        "ways": {
            way: {
                "images_a_second": [round(batch / value, 2) for value in values],
                "times_open_clip": round(middle[f"open_clip, {way[-4:]}"] / middle[way], 3),
                "times_floor": round(middle[way] / batch / floors[way[-4:]], 2),
            }
            for way, values in found.items()
            if not way.startswith("product")
        },
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--towers", nargs="+", default=["RN50", "ViT-B-32", "ViT-B-16"])
    options.add_argument("--batch", type=int, help=f"images at once; by default {BATCH}")
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    batch = chosen.batch or BATCH[device.type]
    found = {name: measure(name, device, batch, chosen.turns) for name in chosen.towers}
    products = {p: [value for _, times in found.values() for value in times[f"product, {p}"]] for p in PRECISIONS}
    rates = {precision: 2 * PRODUCT[device.type] ** 3 / min(times) for precision, times in products.items()}
    result = {
        "batch": batch,
        "classes": CLASSES,
        "operations_a_second": {precision: round(rate) for precision, rate in rates.items()},
        "towers": {name: compared(*facts, batch, rates) for name, facts in found.items()},
    }
    record_on(device, "loading_labels", result)


if __name__ == "__main__":
    main()
