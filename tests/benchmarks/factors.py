"""Count what a projector's deltas cost in bytes, and what fewer bytes do to its labels.

    python tests/benchmarks/factors.py cifar10.hello cifar10/

The archive's projector is in fp16, of a build with the CIFAR-10 folder (prepare.py makes it) and the teacher
shared/data/teachers/cifar_resnet.py:cifar10_resnet20. Every variant answers 2,000 of the archive's own views; bytes are
those of the archive's section. `fitted` variants learn, rounded, the fp16 labels of views of real images.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import record, shared
from safetensors.torch import load, save
from torch import Tensor

from hellods.data.options import read_views
from hellods.evaluate.fidelity import fidelity
from hellods.format.archive import Archive
from hellods.format.sections import encode
from hellods.labels.backbones import BACKBONES
from hellods.labels.config import ProjectorConfig, Quantization
from hellods.labels.projector import Projector
from hellods.record import from_json
from hellods.sources.source import open_source, squares
from hellods.teachers.teacher import load_teacher
from hellods.views.draw import draw
from hellods.views.render import render

VIEWS, BATCH = 2000, 250
STEPS, STEP_BATCH, LEARNING_RATE = 120, 64, 5e-4  # of the fitted variants
VARIANTS: tuple[tuple[Quantization, bool], ...] = (("fp16", False), ("int8", False), ("int4", False), ("int4", True))


def size(projector: Projector) -> int:
    return encode("projector", save(projector.state()))[0].length


def answers(label_maker: Any, views: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([label_maker(part) for part in views.split(BATCH)])


def compare(labels: Tensor, exact: Tensor, teacher: Tensor) -> dict[str, float]:
    truth = torch.zeros_like(labels)
    near, far = fidelity(labels, exact, truth), fidelity(labels, teacher, truth)
    return {
        "agreement_with_fp16": near["agreement"],
        "kl_from_fp16": near["kl"]["1"],
        "agreement_with_teacher": far["agreement"],
        "kl_from_teacher": far["kl"]["1"],
        "relative_error_of_logits": round(((labels - exact).square().mean().sqrt() / exact.std()).item(), 4),
    }


def cifar(archive: Path, folder: Path) -> list[dict[str, Any]]:
    """Return bytes and fidelity of each variant of an archive's projector."""
    with Archive.open(archive) as opened:
        header, state = opened.header, load(opened.read("projector"))
        images = torch.tensor(opened.pixels()).permute(0, 3, 1, 2).contiguous()
    config, rule = from_json(ProjectorConfig, header.projector, "projector"), read_views(header, str(archive))
    side, every = (images.shape[2], images.shape[3]), torch.arange(len(images))
    drawn = [draw(rule, side, len(images), 0, epoch, every) for epoch in range(VIEWS // len(images))]
    views = torch.cat([render(images, one) for one in drawn])
    place = shared() / "data" / "teachers"
    architecture, weights = f"{place / 'cifar_resnet.py'}:cifar10_resnet20", place / "cifar10_resnet20.safetensors"
    teacher = load_teacher(architecture, str(weights), header.images.mean, header.images.std, header.classes, 32)
    exact, truth = answers(Projector.restore(config, header.classes, state), views), answers(teacher, views)
    source, _ = open_source(str(folder), seed=0)

    def stored(quantization: Quantization) -> Projector:
        backbone = BACKBONES[config.architecture](config.base, config.head)
        projector = Projector(config, backbone, torch.Generator().manual_seed(0))
        projector.load(state)
        projector.config = replace(config, quantization=quantization)
        projector.quantize()
        return projector

    def fit(projector: Projector) -> None:
        reference = Projector.restore(config, header.classes, state)
        optimizer = torch.optim.AdamW(projector.learned().values(), lr=LEARNING_RATE, weight_decay=0.0)
        generator = torch.Generator().manual_seed(0)
        crops = replace(rule, scale=(0.08, 1.0), shuffle=1)
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / STEPS)
            indices = torch.randint(len(source), (STEP_BATCH,), generator=generator)
            seen = render(
                squares(source, indices, 32), draw(crops, (32, 32), STEP_BATCH, 1, step, torch.arange(STEP_BATCH))
            )
            with torch.no_grad():
                target = reference(seen)
            optimizer.zero_grad()
            F.mse_loss(projector(seen), target).backward()
            optimizer.step()

    rows = []
    for quantization, fitted in VARIANTS:
        projector = stored(quantization)
        if fitted:
            fit(projector)
        facts = {"quantization": quantization, "fitted": fitted, "bytes": size(projector)}
        rows.append(facts | compare(answers(projector, views), exact, truth))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path, help="CIFAR-10 as image folders train/ and val/")
    options = parser.parse_args()
    record("factors", {"cifar10": cifar(options.archive, options.folder)})


if __name__ == "__main__":
    main()
