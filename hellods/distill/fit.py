"""fit_projector(): low-rank deltas and head learn the teacher; quantize_projector(): in few bits they say the same."""

from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer
from torch.utils.data import BatchSampler, RandomSampler

from hellods.device import to_device, training_dtype
from hellods.labels import LabelMaker
from hellods.labels.precision import exact
from hellods.labels.projector import Projector
from hellods.progress import Progress, silent
from hellods.sources.source import Source, squares
from hellods.train import NO_CHECKPOINT, Checkpoint, Schedule, train
from hellods.views.draw import blend, draw
from hellods.views.render import render
from hellods.views.rule import Views

REFIT: Final = 1 / 16  # of the views of a fit, and 1/8 of its pace: enough to make up for rounded deltas
PACE: Final = 1 / 8


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How long, how fast, and how much the true classes count beside the teacher's logits."""

    views: int
    batch_size: int
    learning_rate: float  # of the tower's deltas
    head_learning_rate: float
    hard_weight: float
    seed: int
    precision: torch.dtype | None = None  # of forward passes; None: what the device trains in


def fit_projector(
    projector: Projector,
    teacher: LabelMaker,
    source: Source,
    views: Views,
    fit: Fit,
    progress: Progress = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
    stage: str = "Projector",
) -> None:
    """Fit the projector's deltas, in place, to the teacher on views of images.

    The loss is HeLlO's, MSE(projector(x), teacher(x)) + λ·CE(projector(x), y), where x is the same view for both and
    y are the true classes, shared as the view is mixed; but MSE is between logits less their mean over the classes.
    Softmax does not see that mean, and a projector that need not follow it comes much nearer to the rest. In the end
    the bias brings it to the teacher's, for students that learn logits by MSE.
    """
    device = next(projector.parameters()).device
    steps = -(-fit.views // fit.batch_size)
    # Each image once before any comes again; one batch more than there are steps, for the bias.
    generator = torch.Generator().manual_seed(fit.seed)
    sampler = RandomSampler(range(len(source)), num_samples=(steps + 1) * fit.batch_size, generator=generator)
    order = islice(map(torch.tensor, BatchSampler(sampler, fit.batch_size, drop_last=True)), checkpoint.done, None)
    dtype = fit.precision or training_dtype(device)

    def lesson(step: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        indices = next(order)
        images = to_device(squares(source, indices, views.size), device)
        positions = torch.arange(len(indices))
        drawn = draw(views, (views.size, views.size), len(indices), fit.seed, step, positions)
        seen = render(images, drawn)
        truth = F.one_hot(source.targets[indices], len(source.classes)).float()
        # A ConvNet-3 in float32 takes a third of the time of a step.
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            answers = teacher(seen).float()
        return seen, (answers, to_device(blend(truth, drawn), device))

    def loss(logits: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        near = F.mse_loss(_centered(logits), _centered(target[0]))
        return near + fit.hard_weight * F.cross_entropy(logits, target[1])

    if steps:
        train(
            projector,
            lambda epoch: map(lesson, range(checkpoint.done, steps)),
            loss,
            epochs=1,
            steps=steps,
            optimizers=_optimizers(projector, fit),
            schedule=Schedule(),
            stage=stage,
            precision=dtype,
            checkpoint=checkpoint,
            progress=progress,
        )
        seen, (answers, _) = lesson(steps)
        projector.bias.data += (answers - projector.label(seen)).mean()


def quantize_projector(
    projector: Projector,
    source: Source,
    views: Views,
    fit: Fit,
    progress: Progress = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> None:
    """Round a fitted projector's deltas, in place, and fit them on to the labels that it gave before."""
    before = deepcopy(projector).requires_grad_(False)
    projector.quantize()
    rate = PACE * fit.learning_rate
    on = replace(
        fit,
        views=round(REFIT * fit.views),
        learning_rate=rate,
        head_learning_rate=rate,
        hard_weight=0.0,
        precision=torch.float32,  # what bfloat16 rounds off is no smaller than what this makes up for
    )
    # TF32 has ten bits only; labels that others ask for meanwhile wait for the lock.
    with exact(next(projector.parameters()).device):
        fit_projector(projector, before, source, views, on, progress, checkpoint, stage="Quantize")


def _optimizers(projector: Projector, fit: Fit) -> list[Optimizer]:
    """Return Muon for the matrices of the tower's deltas, AdamW for the head and what is no matrix.

    Muon (Jordan et al. 2024) moves all components of a factor alike, those that AdamW would leave behind too. Its steps
    are as long as AdamW's at the same rate (Liu et al. 2025, arXiv 2502.16982).
    """
    tower = [value for value in projector.tower.parameters() if value.requires_grad]
    known = set(map(id, tower))
    head = [value for value in projector.learned().values() if id(value) not in known]
    matrices, others = ([value for value in tower if (value.ndim == 2) == flat] for flat in (True, False))
    groups = [{"params": others, "lr": fit.learning_rate}, {"params": head, "lr": fit.head_learning_rate}]
    # As a group, which may be empty.
    muon = Muon([{"params": matrices}], lr=fit.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return [muon, AdamW(groups, weight_decay=0.0)]


def _centered(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)
