"""measure(): how near the projector comes to the truth, the teacher and the assistant."""

from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from hellods.labels import LabelMaker
from hellods.progress import Progress, track
from hellods.sources.sampling import SAMPLE, accuracy, evaluation_indices
from hellods.sources.source import Source, squares
from hellods.teachers.teacher import Teacher
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

BATCH = 100


def measure(
    projector: LabelMaker,
    mentors: Sequence[Teacher],
    held_out: Source,
    images: Tensor,
    views: Views,
    progress: Progress,
) -> tuple[dict[str, float], int]:
    """Return the projector's accuracy, and how near it comes to its mentors; and on how many held-out images.

    Agreement is the share of the same most likely classes, on held-out images and on 2,000 views. `kl` is the mean of
    KL(mentor ‖ projector) on these views, in nats.

    Args:
        projector: what is measured.
        mentors: the teacher and, if there is one, its assistant; the agreement with that on views follows.
        held_out: real images that nothing learned from.
        images: of the file, uint8 (N, 3, S, S).
        views: of them.
        progress: told of every batch.
    """
    chosen = evaluation_indices(held_out)
    parts = torch.split(chosen, BATCH)
    side = (images.shape[2], images.shape[3])
    count = len(images)
    places = torch.arange(SAMPLE) * max(count, SAMPLE) // SAMPLE  # spread over the images, or epoch after epoch
    drawn = [draw(views, side, count, 0, part // count, part % count) for part in torch.split(places, BATCH)]

    batches = chain((squares(held_out, indices, views.size) for indices in parts), (render(images, d) for d in drawn))
    work = track(batches, len(parts) + len(drawn), "Check", progress)
    answers = [compare(projector, mentors, batch) for batch in work]
    real, seen = answers[: len(parts)], answers[len(parts) :]
    classes = torch.cat([classes for classes, _ in real], dim=1)
    found = {
        "projector_held_out_accuracy": accuracy(held_out, chosen, classes[0] == held_out.targets[chosen]),
        "agreement_on_held_out_images": accuracy(held_out, chosen, classes[0] == classes[1]),
    }
    classes, divergences = (torch.cat(values, dim=1) for values in zip(*seen, strict=True))
    names = ("agreement_on_views", "kl_on_views"), ("agreement_with_assistant_on_views", "kl_from_assistant_on_views")
    for (agreement, kl), theirs, far in zip(names, classes[1:], divergences, strict=False):
        found[agreement], found[kl] = (classes[0] == theirs).double().mean().item(), far.mean().item()
    return {name: round(value, 4) for name, value in found.items()}, len(chosen)


@torch.no_grad()
def compare(projector: LabelMaker, mentors: Sequence[LabelMaker], images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most likely class of each uint8 image, int64 (1 + M, B), the projector's first, and KL, (M, B)."""
    logits = [label_maker(images).cpu() for label_maker in (projector, *mentors)]
    ours, *theirs = (F.log_softmax(values.double(), dim=1) for values in logits)
    divergences = [F.kl_div(ours, mentor, reduction="none", log_target=True).sum(1) for mentor in theirs]
    return torch.stack([values.argmax(1) for values in logits]), torch.stack(divergences)
