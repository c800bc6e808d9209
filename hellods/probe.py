"""Probe labels: a few answers that an archive carries, so that a reader finds out when its own would be wrong."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

import torch
from torch import Tensor

from hellods.device import CPU
from hellods.errors import FormatError
from hellods.format import wire
from hellods.labels import LabelMaker
from hellods.labels.config import Precision
from hellods.labels.precision import TOLERANCES
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

# What is answered at once, in views and in pixel values, since a hostile file may say that views are large.
PART: Final = 8
VALUES: Final = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Probe:
    """P views of an archive's images, and what they are answered with."""

    indices: Tensor  # int64 (P,)
    epochs: Tensor  # int64 (P,)
    digest: Tensor  # uint8 (P, 32), the SHA-256 of each view's bytes
    logits: Tensor  # float32 (P, K)

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], images: int, classes: int, where: str) -> Self:
        """Return the probe that an archive of so many images and classes holds.

        Args:
            tensors: of its section, which may come from anyone.
            images: N.
            classes: K.
            where: names the archive in messages.

        Raises:
            FormatError: they are not what a probe has.
        """
        expected = {
            "indices": (torch.int64, 1),
            "epochs": (torch.int64, 1),
            "digest": (torch.uint8, 2),
            "logits": (torch.float32, 2),
        }
        found = {name: (tensor.dtype, tensor.ndim) for name, tensor in tensors.items()}
        if found != expected or len({len(tensor) for tensor in tensors.values()}) != 1:
            raise FormatError(f"{where}: section probe does not hold indices, epochs, digest and logits of views [C9]")
        probe = cls(**tensors)
        for fault in probe._faults(images, classes):
            raise FormatError(f"{where}: section probe holds {fault} [C9]")
        return probe

    def _faults(self, images: int, classes: int) -> Iterator[str]:
        if not 1 <= len(self.indices) <= wire.MAX_VIEWS:
            yield f"{len(self.indices)} views, from 1 to {wire.MAX_VIEWS} are allowed"
        for name, values, end in (("image", self.indices, images), ("epoch", self.epochs, 1 << 31)):
            if values.min() < 0 or values.max() >= end:
                yield f"an {name} that is not in 0..{end - 1}"
        if self.digest.shape[1] != 32 or self.logits.shape[1] != classes:
            yield f"rows of {self.digest.shape[1]} bytes and {self.logits.shape[1]} logits, expected 32 and {classes}"
        if not self.logits.isfinite().all():
            yield "logits that are not finite"


@torch.no_grad()
def make_probe(label_maker: LabelMaker, images: Tensor, views: Views, count: int = 8) -> Probe:
    """Return what a reader compares its own answers with: views spread over the images, each of another epoch.

    Args:
        label_maker: as a reader will restore it.
        images: uint8 (N, 3, H, W), as a reader decodes them.
        views: of the archive.
        count: P.
    """
    epochs = torch.arange(count, device=CPU)
    indices = epochs * len(images) // count
    side = (images.shape[2], images.shape[3])
    seen = render(images, draw(views, side, len(images), wire.PROBE_SEED, epochs, indices))
    return Probe(indices=indices, epochs=epochs, digest=_digests(seen), logits=label_maker(seen).float().cpu())


@torch.no_grad()
def answer_probe(
    probe: Probe, size: int, view: Callable[[Tensor, Tensor], Tensor], label_maker: LabelMaker
) -> Tensor | None:
    """Return float32 (P, K), the logits of the probe's views, on the CPU; None where a view shows other pixels.

    Args:
        probe: from a file.
        size: of the views in pixels.
        view: returns uint8 (B, 3, size, size) for int64 (B,) epochs and indices, drawn as `make_probe` draws.
        label_maker: the restored one; it answers on the device of its images.
    """
    logits = []
    places = torch.arange(len(probe.indices), device=CPU)
    for part in torch.split(places, max(1, min(PART, VALUES // (3 * size**2)))):
        seen = view(probe.epochs[part], probe.indices[part])
        if not torch.equal(_digests(seen), probe.digest[part]):
            return None
        logits.append(label_maker(seen).float().cpu())
    return torch.cat(logits)


def probe_fault(
    probe: Probe, answer: Callable[[torch.device], Tensor | None], device: torch.device, precision: Precision
) -> str | None:
    """Return why labels made on a device would be wrong; None: they would not.

    Args:
        probe: from a file.
        answer: returns what `answer_probe` does, made on that device.
        device: on which labels are wanted; where it is at fault, the CPU is asked too.
        precision: of the label maker's arithmetic.
    """
    logits, limit = answer(device), TOLERANCES[precision]
    if logits is None:
        if device.type != "cpu" and answer(CPU) is not None:
            return (
                f"views made on {device} are not those made on the CPU: a numerical fault of {device} or its libraries"
            )
        return (
            "the images decode to other pixels here than where the archive was made, so its labels would be "
            "of other images: use another release of Pillow, or the release of hellods that made it"
        )
    off = _distance(logits, probe.logits)
    if off <= limit:
        return None
    differ = f"differ from the archive's probe by {off:.1e} of the largest (limit {limit:.0e})"
    if device.type != "cpu" and _distance(answer(CPU), probe.logits) <= limit:
        return (
            f"labels made on {device} {differ}, and those made on the CPU do not: a numerical fault of {device} or its "
            "libraries"
        )
    if off == math.inf:
        return "the label maker's answers are not finite: a numerical fault of this machine"
    return (
        f"labels {differ}: another release of open_clip or timm computes otherwise, the file's projector is faulty, or "
        "this machine is"
    )


def _distance(logits: Tensor | None, expected: Tensor) -> float:
    """Return how far logits lie from the expected ones, relative to the largest; infinite if they are not finite."""
    if logits is None:
        return math.inf
    off = (logits - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return off.item() if logits.isfinite().all() else math.inf


def _digests(seen: Tensor) -> Tensor:
    digests = b"".join(sha256(view.contiguous().numpy().tobytes()).digest() for view in seen.cpu())
    return torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(-1, 32)
