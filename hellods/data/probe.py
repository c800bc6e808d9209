"""Probe labels: a few answers that an archive carries, so that a reader finds out when its own would be wrong."""

import math
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import torch
from torch import Tensor

from hellods.device import CPU
from hellods.errors import FormatError, LabelError
from hellods.labels import LabelMaker
from hellods.labels.arithmetic import TOLERANCES
from hellods.labels.config import Precision
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

PROBE_SEED: Final = 0  # every probe is drawn from it, whatever seed the archive is read with
MAX_VIEWS: Final = 64  # that a reader answers,
PART: Final = 8  # so many at once, since a hostile file may say that they are large


@torch.no_grad()
def make_probe(label_maker: LabelMaker, images: Tensor, views: Views, count: int = 8) -> dict[str, Tensor]:
    """Return what a reader compares its own answers with.

    Args:
        label_maker: as a reader will restore it.
        images: uint8 (N, 3, H, W), as a reader decodes them.
        views: of the archive.
        count: P, how many views, spread over the images, each of another epoch.

    Returns:
        int64 (P,) `indices` and `epochs`, uint8 (P, 32) `digest`: SHA-256 of the view's bytes, float32 (P, K) `logits`.
    """
    epochs = torch.arange(count, device=CPU)
    indices = epochs * len(images) // count
    side = (images.shape[2], images.shape[3])
    seen = render(images, draw(views, side, len(images), PROBE_SEED, epochs, indices))
    return {"indices": indices, "epochs": epochs, "digest": _digests(seen), "logits": label_maker(seen).float().cpu()}


@torch.no_grad()
def check_probe(
    probe: dict[str, Tensor],
    label_maker: LabelMaker,
    view: Callable[[Tensor, Tensor, torch.device], Tensor],
    count: int,
    where: str,
    *,
    device: torch.device = CPU,
    precision: Precision = "fp32",
) -> None:
    """Answer the probe and compare.

    Args:
        probe: from `make_probe`, read from a file.
        label_maker: the restored one; it answers on the device of its images.
        view: returns uint8 (P, 3, S, S) for int64 (P,) epochs, indices and a device, drawn as `make_probe` draws.
        count: of the images.
        where: names the archive in messages.
        device: to answer on.
        precision: of the label maker's arithmetic.

    Raises:
        FormatError: the probe is not what `make_probe` returns.
        LabelError: the images decode to other pixels, the base model is another one, or it computes wrongly here.
    """
    _check_form(probe, count, where)

    def answer(device: torch.device) -> tuple[Tensor, Tensor]:
        digests, answers = [], []
        for part in torch.split(torch.arange(len(probe["indices"]), device=CPU), PART):
            seen = view(probe["epochs"][part], probe["indices"][part], device)
            digests.append(_digests(seen))
            answers.append(label_maker(seen).float().cpu())
        return torch.cat(digests), torch.cat(answers)

    digests, logits = answer(device)
    if not torch.equal(digests, probe["digest"]):
        raise LabelError(
            f"{where}: the images decode to other pixels here than where the archive was made, so its labels would be "
            "of other images: use another release of Pillow, or the release of hellods that made it"
        )
    expected, limit = probe["logits"], TOLERANCES[precision]
    if logits.shape != expected.shape:
        raise FormatError(f"{where}: probe logits {tuple(expected.shape)}, the label maker's {tuple(logits.shape)}")
    off = _distance(logits, expected)
    if off <= limit:
        return
    near = off if device.type == "cpu" else _distance(answer(CPU)[1], expected)
    raise LabelError(f"{where}: {_fault(off, near, limit, device)}")


def _fault(off: float, near: float, limit: float, device: torch.device) -> str:
    """Return what is wrong with answers `off` on a device, which on the CPU are `near`."""
    differ = f"differ from the archive's probe by {off:.1e} of the largest (limit {limit:.0e})"
    if near <= limit:
        return (
            f"labels made on {device} {differ}, and those made on the CPU do not: a numerical fault of {device} or its "
            "libraries"
        )
    if off == math.inf:
        return "the label maker's answers are not finite: a numerical fault of this machine"
    return (
        f"labels {differ}: other base weights or another activation function; check base= and the release of open_clip"
    )


def _distance(logits: Tensor, expected: Tensor) -> float:
    """Return how far logits lie from the expected ones, relative to the largest; infinite if they are not finite."""
    off = (logits - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return off.item() if logits.isfinite().all() else math.inf


def _digests(seen: Tensor) -> Tensor:
    digests = b"".join(sha256(view.contiguous().numpy().tobytes()).digest() for view in seen.cpu())
    return torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(-1, 32)


def _check_form(probe: dict[str, Tensor], count: int, where: str) -> None:
    expected = {
        "indices": (torch.int64, 1),
        "epochs": (torch.int64, 1),
        "digest": (torch.uint8, 2),
        "logits": (torch.float32, 2),
    }
    found = {name: (tensor.dtype, tensor.ndim) for name, tensor in probe.items()}
    if found != expected or len({len(tensor) for tensor in probe.values()}) != 1 or probe["digest"].shape[1] != 32:
        raise FormatError(f"{where}: section probe does not hold indices, epochs, digest and logits of the same views")
    indices, epochs = probe["indices"], probe["epochs"]
    if len(indices) > MAX_VIEWS:
        raise FormatError(f"{where}: section probe holds {len(indices)} views, the limit is {MAX_VIEWS}")
    if not len(indices) or indices.min() < 0 or indices.max() >= count or epochs.min() < 0 or epochs.max() >= 1 << 31:
        raise FormatError(f"{where}: section probe holds no views, or an image or an epoch out of range")
    if not probe["logits"].isfinite().all():
        raise FormatError(f"{where}: section probe holds logits that are not finite")
