"""Fidelity: how labels compare with the teacher's on the very views that a student saw."""

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURES: Final = (1, 4, 20)
BINS: Final = 15  # of the calibration error, as in Guo et al. 2017
SEEN: Final = 2048  # views that are compared, spread over the whole training


def fidelity(labels: Tensor, teacher: Tensor | None, truth: Tensor) -> dict[str, Any]:
    """Return the labels' agreement with the teacher, their calibration, and how sure they are.

    `agreement` is the share of views with the same most likely class, `kl` the mean KL(teacher ‖ labels) in nats of
    both softened by each temperature; both None without a teacher. `calibration_error` is the expected calibration
    error (Guo et al. 2017, arXiv 1706.04599) in 15 bins, where a view is right by the share of its most likely class.
    `entropy` is the labels' mean in nats, `margin` the mean distance of the two largest probabilities.

    Args:
        labels: float (B, K) logits.
        teacher: float (B, K) logits.
        truth: float (B, K), the share of every class in the view.
    """
    probabilities = labels.softmax(1)
    confidence, chosen = probabilities.max(1)
    first, second = probabilities.topk(2).values.unbind(1)
    right = truth.gather(1, chosen[:, None])[:, 0]
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gaps = torch.zeros(BINS, device=labels.device).index_add_(0, bins, confidence - right)
    return {
        "views": len(labels),
        "agreement": None if teacher is None else _number((chosen == teacher.argmax(1)).float().mean()),
        "kl": None if teacher is None else {str(t): _number(divergence(teacher, labels, t)) for t in TEMPERATURES},
        "calibration_error": _number(gaps.abs().sum() / len(labels)),
        "entropy": _number(torch.special.entr(probabilities).sum(1).mean()),
        "margin": _number((first - second).mean()),
    }


def divergence(teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the mean KL divergence of labels from a teacher's, in nats, of logits (B, K) that are divided by that."""
    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (labels, teacher))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _number(value: Tensor) -> float:
    return round(value.item(), 6)
