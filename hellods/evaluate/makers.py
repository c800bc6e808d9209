"""The label makers that a `.hello` file competes with: a shipped teacher, and labels stored in few bytes."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, is_tensor

from hellods.labels import LabelMaker
from hellods.labels.quantize import dequantize, packed_bytes, quantize
from hellods.teachers.teacher import Teacher

LEAST_KEPT = 5  # classes of a stored label, as in FKD (Shen & Xing 2022, arXiv 2112.01528), before views are saved on
LEVELS = 255


def ship(teacher: Teacher, bits: int) -> tuple[Teacher, int]:
    """Return the teacher as its receiver has it, and the bytes that were sent.

    Matrices and convolutions are sent in so many bits, all else in float16 where it can be; with 16 bits, everything.
    """
    shipped, size = deepcopy(teacher), 0
    state = filter(is_tensor, shipped.network.state_dict().values())
    for value in {value.data_ptr(): value for value in state}.values():  # weights that layers share are sent once
        if value.is_floating_point() and value.ndim > 1 and bits < 16:
            value.copy_(dequantize(*quantize(value, bits), value.shape))
            size += packed_bytes(value.shape, bits)
        elif value.is_floating_point() and value.half().isfinite().all():
            value.copy_(value.half())
            size += 2 * value.numel()
        else:
            size += value.element_size() * value.numel()
    return shipped, size


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How labels are stored in a budget: for so many views of each image, so many classes of each label."""

    views: int  # of each image; the student sees them again and again
    kept: int  # classes with the largest logits
    whole: bool  # float16 logits of all classes
    bytes: int


def storage_within(budget: int, images: int, epochs: int, classes: int) -> Storage | None:
    """Return what a budget of bytes buys; None if that is less than a view of each image.

    In order of preference: float16 logits of every class for a view in every epoch (the full labels of the
    literature); 8-bit logits, of as many classes as every view can have; with 5 classes, as many views as there can be.
    A label of k of K classes is k 8-bit logits, k class numbers of ceil(log2 K) bits, and 8 bits for the mean of the
    rest; with all K, the logits alone.

    It is not the most that could be packed. Of 10 classes, 6 cost as much as all, so a budget just under all of them
    leaves 15 % over: a bit mask for the class numbers, or all classes with fewer bits or of fewer views, would use it.
    Students showed nothing to be gained by that (tests/benchmarks/LOG.md).
    """
    labels = images * epochs
    full = 2 * labels * classes
    if budget >= full:
        return Storage(views=epochs, kept=classes, whole=True, bytes=full)

    def bits(kept: int) -> int:
        return 8 * classes if kept == classes else kept * (8 + (classes - 1).bit_length()) + 8

    useful = [kept for kept in range(min(LEAST_KEPT, classes), classes + 1) if bits(kept) <= bits(classes)]
    fitting = [kept for kept in useful if labels * bits(kept) <= 8 * budget]
    kept = fitting[-1] if fitting else useful[0]
    views = epochs if fitting else 8 * budget // (images * bits(kept))
    if not views:
        return None
    return Storage(views=views, kept=kept, whole=False, bytes=-(-images * views * bits(kept) // 8))


def truncated(teacher: LabelMaker, storage: Storage, low: float, high: float) -> LabelMaker:
    """Return a label maker that answers what was stored of the teacher's logits.

    Args:
        teacher: whose logits are stored.
        storage: what of them.
        low: the least logit that the 8 bits can tell, 0.
        high: the largest, 255.
    """

    def answer(images: Tensor) -> Tensor:
        logits = teacher(images)
        if storage.whole:
            return logits.half().float()
        kept, places = logits.topk(storage.kept, dim=1)
        if storage.kept == logits.shape[1]:
            return _rounded(logits, low, high)
        others = (logits.sum(1, keepdim=True) - kept.sum(1, keepdim=True)) / (logits.shape[1] - storage.kept)
        result = _rounded(others, low, high).expand(logits.shape).clone()
        return result.scatter_(1, places, _rounded(kept, low, high))

    return answer


def _rounded(values: Tensor, low: float, high: float) -> Tensor:
    step = max(high - low, 1e-6) / LEVELS
    return ((values - low) / step).round().clamp(0, LEVELS) * step + low


@torch.no_grad()
def logit_range(teacher: LabelMaker, views: Iterable[Tensor]) -> tuple[float, float]:
    """Return the least and the largest logit on batches of views."""
    bounds = torch.stack([torch.stack(teacher(some).aminmax()) for some in views])
    return bounds[:, 0].min().item(), bounds[:, 1].max().item()
