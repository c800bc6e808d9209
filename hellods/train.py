"""The one training loop, for teacher and student."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from hellods.errors import RecipeError
from hellods.progress import Progress, silent

# (steps done, steps per epoch, epochs) -> what the learning rate is multiplied by.
MULTIPLIERS: Final[dict[str, Callable[[int, int, int], float]]] = {
    "cosine": lambda step, steps, epochs: 0.5 * (1 + math.cos(math.pi * step / (steps * epochs))),
    # RDED's published code: once per epoch, and only half the way down.
    "half-cosine": lambda step, steps, epochs: 0.5 * (1 + math.cos(math.pi * (step // steps) / (2 * epochs))),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How fast to learn: AdamW, with a learning rate that falls."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01  # of matrices only, as in RDED
    multiplier: Literal["cosine", "half-cosine"] = "cosine"


def train(
    network: nn.Module,
    batches: Callable[[int], Iterable[tuple[Tensor, Any]]],
    loss: Callable[[Tensor, Any], Tensor],
    *,
    epochs: int,
    steps: int,
    schedule: Schedule,
    stage: str,
    groups: list[dict[str, Any]] | None = None,
    seed: int = 0,
    precision: torch.dtype = torch.float32,
    after: Callable[[int], None] = lambda epochs: None,
    progress: Progress = silent,
) -> None:
    """Train `network` in place; parameters that need no gradient stay as they are.

    Args:
        network: float images -> logits.
        batches: epoch -> `steps` pairs of images ready for the network, on its device, and of what `loss` takes.
        loss: (logits, targets) -> a scalar.
        epochs: how often `batches` is called.
        steps: per epoch.
        schedule: optimizer and learning rate.
        stage: names the training in progress and in messages.
        groups: torch's parameter groups, where parts learn at rates of their own; None: one rate, decay on matrices.
        seed: of random layers such as dropout; global random state is left as it was.
        precision: bfloat16 for autocast of the forward pass; weights, loss and optimizer stay in float32.
        after: called after every epoch with the number of epochs done.
        progress: told of every step.

    Raises:
        RecipeError: the loss is no longer finite.
        ValueError: `batches` yields more or fewer than `steps`.
    """
    total = epochs * steps
    progress(stage, 0, total)
    if not total:
        return
    decay = schedule.weight_decay
    optimizer = torch.optim.AdamW(groups or _groups(network, decay), lr=schedule.learning_rate, weight_decay=decay)
    multiplier = MULTIPLIERS[schedule.multiplier]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: multiplier(step, steps, epochs))
    with _mode(network, training=True), _random(network, seed):
        for epoch in range(epochs):
            for step, (images, targets) in zip(range(steps), batches(epoch), strict=True):
                with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
                    logits = network(images)
                value = loss(logits.float(), targets)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
                done = epoch * steps + step + 1
                # Now and then, since reading the loss stops a GPU.
                if (done % 100 == 0 or done == total) and not value.isfinite():
                    raise RecipeError(f"{stage}: the loss is {value.item()} after {done} steps; learn slower")
                progress(stage, done, total)
            after(epoch + 1)


@torch.no_grad()
def predict(
    label_maker: Callable[[Tensor], Tensor], batches: Iterable[Tensor], precision: torch.dtype = torch.float32
) -> Tensor:
    """Return int64 (N,) on the CPU, the most likely class of each image; a module answers in eval mode.

    Args:
        label_maker: images -> logits (B, K); a module is left as it was.
        batches: of images, on the label maker's device; at least one image.
        precision: bfloat16 for autocast.
    """
    found = []
    with _mode(label_maker, training=False):
        for images in batches:
            with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
                found.append(label_maker(images).argmax(1).cpu())
    return torch.cat(found)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in learned if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learned if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


@contextmanager
def _mode(maybe: object, *, training: bool) -> Iterator[None]:
    """Put a module into training or eval mode, and every part of it back into its own afterwards."""
    modules = list(maybe.modules()) if isinstance(maybe, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        if isinstance(maybe, nn.Module):
            maybe.train(training)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def _random(network: nn.Module, seed: int) -> Iterator[None]:
    devices = {parameter.device for parameter in network.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
