"""measure(): how near the projector comes to the truth and to the teacher."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from hellods.labels import LabelMaker
from hellods.progress import Progress, track
from hellods.sources.source import SAMPLE, Source, accuracy, judges, squares
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
    """Return the projector's accuracy and its agreement with the teacher, and on how many held-out images.

    Agreement is the share of the same most likely classes, on held-out images and on 2,000 views.

    Args:
        projector: what is measured.
        mentors: the teacher and, if there is one, its assistant; the agreement with that on views follows.
        held_out: real images that nothing learnt from.
        images: of the file, uint8 (N, 3, S, S).
        views: of them.
        progress: told of every batch.
    """
    chosen = judges(held_out)
    parts = torch.split(chosen, BATCH)
    side = (images.shape[2], images.shape[3])
    count = len(images)
    places = torch.arange(SAMPLE) * max(count, SAMPLE) // SAMPLE  # spread over the images, or epoch after epoch
    drawn = [draw(views, side, count, 0, part // count, part % count) for part in torch.split(places, BATCH)]

    batches = chain((squares(held_out, indices, views.size) for indices in parts), (render(images, d) for d in drawn))
    work = track(batches, len(parts) + len(drawn), "Check", progress)
    answers = [predict((projector, *mentors), batch) for batch in work]
    real, seen = torch.cat(answers[: len(parts)], dim=1), torch.cat(answers[len(parts) :], dim=1)
    found = {
        "projector_held_out_accuracy": accuracy(held_out, chosen, real[0] == held_out.targets[chosen]),
        "agreement_on_held_out_images": accuracy(held_out, chosen, real[0] == real[1]),
    }
    for name, theirs in zip(("agreement_on_views", "agreement_with_assistant_on_views"), seen[1:], strict=False):
        found[name] = (seen[0] == theirs).double().mean().item()
    return {name: round(value, 4) for name, value in found.items()}, len(chosen)


@torch.no_grad()
def predict(label_makers: Sequence[LabelMaker], images: Tensor) -> Tensor:
    """Return each label maker's most likely class of each uint8 image, int64 (label makers, B)."""
    return torch.stack([label_maker(images).argmax(1).cpu() for label_maker in label_makers])
