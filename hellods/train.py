"""The one training loop, for teacher and student."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from hellods.errors import OptionError
from hellods.nets import in_mode
from hellods.progress import Progress, silent

# (steps done, steps per epoch, epochs) -> what the learning rate is multiplied by.
MULTIPLIERS: Final[dict[str, Callable[[int, int, int], float]]] = {
    "cosine": lambda step, steps, epochs: 0.5 * (1 + math.cos(math.pi * step / (steps * epochs))),
    # RDED's published code: once per epoch, and only half the way down.
    "half-cosine": lambda step, steps, epochs: 0.5 * (1 + math.cos(math.pi * (step // steps) / (2 * epochs))),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the rates of all optimizers fall, together, from where each begins."""

    multiplier: Literal["cosine", "half-cosine"] = "cosine"
    epochs: int | None = None  # over which they fall; None: all that are trained


class Checkpoint:
    """How far a training has come, and who saves that; this one is at its beginning and saves nothing.

    Attributes:
        state: what a training gave to `save`; empty at the beginning.
    """

    def __init__(self, state: Mapping[str, Tensor] | None = None) -> None:
        self.state = state or {}

    @property
    def done(self) -> int:
        """Steps that lie behind."""
        return int(self.state["done"]) if self.state else 0

    def save(self, done: int, total: int, state: Callable[[], dict[str, Tensor]]) -> None:
        """Take note of a step; whoever wants the state then calls `state`, and stores it before returning."""


NO_CHECKPOINT: Final = Checkpoint()


def train(
    network: nn.Module,
    batches: Callable[[int], Iterable[tuple[Tensor, Any]]],
    loss: Callable[[Tensor, Any], Tensor],
    *,
    epochs: int,
    steps: int,
    optimizers: Sequence[Optimizer],
    schedule: Schedule,
    stage: str,
    seed: int = 0,
    precision: torch.dtype = torch.float32,
    after: Callable[[int], None] = lambda epochs: None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
    progress: Progress = silent,
) -> None:
    """Train `network` in place; parameters that need no gradient stay as they are.

    On a CPU, a training that goes on from what was kept ends in the very weights of one that was never stopped.

    Args:
        network: float images -> logits.
        batches: epoch -> `steps` pairs of images ready for the network, on its device, and of what `loss` takes;
            for the epoch in which a training goes on, those after `checkpoint.done`.
        loss: (logits, targets) -> a scalar.
        epochs: how often `batches` is called.
        steps: per epoch.
        optimizers: of the parts that learn, such as one `adamw`.
        schedule: how their learning rates fall.
        stage: names the training in progress and in messages.
        seed: of random layers such as dropout; global random state is left as it was.
        precision: bfloat16 for autocast of the forward pass; weights, loss and optimizer stay in float32.
        after: called after every epoch with the number of epochs done.
        checkpoint: told of every step.
        progress: told of every step.

    Raises:
        OptionError: the loss is no longer finite.
        ValueError: `batches` yields more or fewer than `steps`.
    """
    total = epochs * steps
    progress(stage, checkpoint.done, total)
    if not total:
        return
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    multiplier, falling = MULTIPLIERS[schedule.multiplier], schedule.epochs or epochs
    with in_mode(network, training=True), _random(network, seed):
        if checkpoint.state:
            _restore(checkpoint.state, network, optimizers)
        begin, skipped = divmod(checkpoint.done, steps)
        for epoch in range(begin, epochs):
            first = skipped if epoch == begin else 0
            for step, (images, targets) in zip(range(first, steps), batches(epoch), strict=True):
                done = epoch * steps + step
                for group, rate in zip(groups, rates, strict=True):
                    group["lr"] = rate * multiplier(done, steps, falling)
                with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
                    logits = network(images)
                value = loss(logits.float(), targets)
                _step(network, value, optimizers)
                done += 1
                if done % 100 == 0 or done == total:  # now and then, since reading the loss stops a GPU
                    _check_finite(value, stage, done)
                if done % steps == 0:
                    after(done // steps)  # may change what is kept
                checkpoint.save(done, total, partial(_state, done, network, optimizers))
                progress(stage, done, total)


def adamw(network: nn.Module, *, learning_rate: float = 1e-3, weight_decay: float = 0.01) -> Optimizer:
    """Return AdamW for what learns in a network, with decay of matrices and convolutions alone, as in RDED."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learned if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learned if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learning_rate)


@torch.no_grad()
def predict(network: nn.Module, batches: Iterable[Tensor], precision: torch.dtype = torch.float32) -> Tensor:
    """Return int64 (N,) on the CPU, the most likely class of each image.

    Args:
        network: images -> logits (B, K); it answers in eval mode, and is left as it was.
        batches: of images, on the network's device; at least one image.
        precision: bfloat16 for autocast.
    """
    found = []
    with in_mode(network, training=False):
        for images in batches:
            with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
                found.append(network(images).argmax(1).cpu())
    return torch.cat(found)


def _step(network: nn.Module, loss: Tensor, optimizers: Sequence[Optimizer]) -> None:
    network.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()


def _check_finite(loss: Tensor, stage: str, done: int) -> None:
    if not loss.isfinite():
        raise OptionError(
            f"{stage}: the loss is {loss.item()} after {done} steps; lower the learning rate, or choose another network"
        )


def _state(done: int, network: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    state = {"done": torch.tensor(done), "random": torch.get_rng_state()}
    state |= {f"random.gpu{n}": torch.cuda.get_rng_state(device) for n, device in enumerate(_gpus(network))}
    state |= {f"network.{name}": value for name, value in _changing(network).items()}
    for number, (optimizer, parameter) in enumerate(_learned(optimizers)):
        state |= {f"optimizer.{number}.{name}": value for name, value in optimizer.state[parameter].items()}
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _restore(state: Mapping[str, Tensor], network: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    torch.set_rng_state(state["random"])
    for place, device in enumerate(_gpus(network)):  # which may be others of their kind by now
        torch.cuda.set_rng_state(state[f"random.gpu{place}"], device)
    with torch.no_grad():
        for name, value in _changing(network).items():
            value.copy_(state[f"network.{name}"])
    learned = _learned(optimizers)
    for name, value in state.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            number, _, moment = rest.partition(".")
            optimizer, parameter = learned[int(number)]
            # In the parameter's memory format, so that the same sums are rounded in the same order.
            like = value.clone() if moment == "step" else torch.empty_like(parameter).copy_(value)
            optimizer.state[parameter][moment] = like


def _changing(network: nn.Module) -> dict[str, Tensor]:
    """Return what a training changes: learned parameters, and the buffers of layers such as BatchNorm."""
    learned = {name: value for name, value in network.named_parameters() if value.requires_grad}
    return learned | dict(network.named_buffers())


def _learned(optimizers: Sequence[Optimizer]) -> list[tuple[Optimizer, Tensor]]:
    """Return each parameter, after who moves it."""
    return [(one, parameter) for one in optimizers for group in one.param_groups for parameter in group["params"]]


@contextmanager
def _random(network: nn.Module, seed: int) -> Iterator[None]:
    devices = _gpus(network)
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _gpus(network: nn.Module) -> list[torch.device]:
    return list(dict.fromkeys(parameter.device for parameter in network.parameters() if parameter.is_cuda))
