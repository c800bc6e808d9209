"""measure(): how near the projector comes to the truth and to the teacher."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from hellods.distill.sources import Source, squares
from hellods.distill.teacher import Teacher
from hellods.labels import LabelMaker
from hellods.progress import Progress, track
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

SAMPLE = 2000  # images, and views, at most
BATCH = 100


def measure(
    projector: LabelMaker,
    mentors: Sequence[Teacher],
    held_out: Source,
    images: Tensor,
    views: Views,
    progress: Progress,
) -> dict[str, float]:
    """Return the projector's accuracy and its top-1 agreement with the teacher: held-out images, then views.

    `mentors` are the teacher and the assistant, if there is one; with that the agreement on views follows.
    """
    sample = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    chosen = torch.split(sample, BATCH)
    side = (images.shape[2], images.shape[3])
    count = len(images)
    places = torch.arange(SAMPLE) * max(count, SAMPLE) // SAMPLE  # spread over the images, or epoch after epoch
    drawn = [draw(views, side, count, 0, part // count, part % count) for part in torch.split(places, BATCH)]

    batches = chain((squares(held_out, indices, views.size) for indices in chosen), (render(images, d) for d in drawn))
    work = track(batches, len(chosen) + len(drawn), "Check", progress)
    answers = [predict((projector, *mentors), batch) for batch in work]
    real, seen = torch.cat(answers[: len(chosen)], dim=1), torch.cat(answers[len(chosen) :], dim=1)
    agreements = ("agreement_on_views", "agreement_with_assistant_on_views")
    return {
        "projector_held_out_accuracy": share(real[0] == held_out.targets[sample]),
        "agreement_on_held_out_images": share(real[0] == real[1]),
    } | {name: share(seen[0] == theirs) for name, theirs in zip(agreements, seen[1:], strict=False)}


@torch.no_grad()
def predict(label_makers: Sequence[LabelMaker], images: Tensor) -> Tensor:
    """Return each label maker's most likely class of each uint8 image, int64 (label makers, B)."""
    return torch.stack([label_maker(images).argmax(1).cpu() for label_maker in label_makers])


def share(hits: Tensor) -> float:
    """Return the share of true values, to four digits."""
    return round(hits.double().mean().item(), 4)
