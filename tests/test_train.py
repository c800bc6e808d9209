"""The loop follows its schedule to the step, repeats exactly, and leaves nothing behind."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import SGD, Muon, Optimizer

from hellods.errors import OptionError
from hellods.train import Checkpoint, Schedule, adamw, predict, train

EPOCHS, STEPS = 3, 4


def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(STEPS):
        images = torch.randn(8, 2, generator=generator)
        yield images, (images[:, 0] > 0).long()


def run(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    given: Callable[[int], Iterable[tuple[Tensor, object]]] = batches,
    **options: object,
) -> None:
    """Train by AdamW, unless told otherwise for a few epochs of the batches above."""
    usual = {"epochs": EPOCHS, "steps": STEPS, "optimizers": [adamw(network)], "schedule": Schedule(), "stage": "Test"}
    train(network, given, loss, **usual | options)  # type: ignore[arg-type]


def half_cosine(step: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step // STEPS) / (2 * EPOCHS)))


def cosine(step: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / (STEPS * EPOCHS)))


@pytest.mark.parametrize(("name", "formula"), [("half-cosine", half_cosine), ("cosine", cosine)])
def test_learning_rate_follows_the_published_curve_at_every_step(
    name: Literal["half-cosine", "cosine"], formula: Callable[[int], float]
) -> None:
    network = nn.Linear(1, 1, bias=False).double()
    path = []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        path.append(network.weight.item())
        return network.weight.sum()  # a gradient of one: Adam moves by the learning rate itself

    run(
        network,
        loss,
        lambda epoch: ((images[:, :1].double(), targets) for images, targets in batches(epoch)),
        optimizers=[adamw(network, learning_rate=0.1, weight_decay=0.0)],
        schedule=Schedule(multiplier=name),
    )
    path.append(network.weight.item())
    rates = [before - after for before, after in pairwise(path)]
    assert rates == pytest.approx([0.1 * formula(step) for step in range(EPOCHS * STEPS)], rel=1e-6)


def test_each_optimizer_begins_at_its_own_rate_and_they_fall_together() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    one, other = SGD(network[0].parameters(), lr=0.5), SGD(network[1].parameters(), lr=0.1)
    before, seen = [value.clone() for value in network.parameters()], []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append((one.param_groups[0]["lr"], other.param_groups[0]["lr"]))
        return F.cross_entropy(logits, targets)

    run(network, loss, epochs=2, optimizers=[one, other])
    assert seen[0] == (0.5, 0.1)
    assert [second / first for first, second in seen] == pytest.approx([0.2] * 2 * STEPS)
    assert seen[-1][0] < 0.1
    assert not any(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def test_decay_shrinks_matrices_alone() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in network.named_parameters()}
    run(network, lambda logits, targets: 0 * logits.sum(), optimizers=[adamw(network, weight_decay=0.5)])
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"0.weight"}


def test_network_learns() -> None:
    network = nn.Linear(2, 2)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    run(network, optimizers=[adamw(network, learning_rate=0.3)])
    images, targets = map(torch.cat, zip(*batches(99), strict=True))
    assert (predict(network, images.split(8)) == targets).double().mean() > 0.8


def dropping() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.Linear(16, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
    return network


def test_same_seed_gives_the_same_weights_whatever_the_global_state() -> None:
    first, second = dropping(), dropping()
    run(first)
    torch.rand(5)
    run(second)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_global_random_state_is_left_alone() -> None:
    network = dropping()
    before = torch.get_rng_state()
    run(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_part_returns_to_its_own_mode() -> None:
    network = dropping()
    network[1].eval()
    run(network)
    assert [module.training for module in network] == [True, False, True]


def test_frozen_parameters_stay() -> None:
    network = dropping()
    network[0].requires_grad_(False)
    before = network[0].weight.clone()
    run(network)
    assert torch.equal(network[0].weight, before)


def test_every_step_is_reported() -> None:
    calls: list[tuple[str, int, int]] = []
    run(nn.Linear(2, 2), epochs=2, progress=lambda *call: calls.append(call))
    assert calls == [("Test", done, 2 * STEPS) for done in range(2 * STEPS + 1)]


def test_no_steps_leave_the_network_as_it_was() -> None:
    network = dropping()
    run(network, steps=0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), dropping().parameters(), strict=True))


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS + 1])
def test_another_number_of_batches_is_an_error(steps: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        run(nn.Linear(2, 2), epochs=1, steps=steps)


def test_diverging_loss_names_stage_and_step() -> None:
    with pytest.raises(OptionError, match="Test: the loss is nan after 12 steps"):
        run(nn.Linear(2, 2), lambda logits, targets: logits.sum() * torch.nan)


def test_targets_reach_the_loss_as_they_are() -> None:
    seen = []

    def loss(logits: Tensor, targets: tuple[str, int]) -> Tensor:
        seen.append(targets)
        return logits.sum()

    pair = (torch.zeros(2, 2), ("any", 1))
    run(nn.Linear(2, 2), loss, lambda epoch: [pair], epochs=1, steps=1)  # type: ignore[arg-type]
    assert seen == [("any", 1)]


def test_the_end_of_every_epoch_is_told() -> None:
    ended: list[int] = []
    run(nn.Linear(2, 2), after=ended.append)
    assert ended == [1, 2, 3]


class Notebook(Checkpoint):
    """Keeps the state of every step."""

    def __init__(self, state: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(state)
        self.pages: list[dict[str, Tensor]] = []

    def save(self, done: int, total: int, state: Callable[[], dict[str, Tensor]]) -> None:
        self.pages.append({name: value.clone() for name, value in state().items()})


def learner() -> nn.Sequential:
    """What has all that must be kept: matrices in channels-last, a scalar, BatchNorm's buffers, dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5), nn.Flatten(), nn.Linear(20, 2))
        network = nn.Sequential(*layers)
    network.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))
    return network.to(memory_format=torch.channels_last)


def optimizers(network: nn.Module) -> list[Optimizer]:
    """What learns in two ways: the matrix by Muon, all else by SGD."""
    learned = list(network.parameters())
    return [
        Muon([value for value in learned if value.ndim == 2]),
        SGD([value for value in learned if value.ndim != 2], momentum=0.9),
    ]


def learn(checkpoint: Checkpoint, by: Callable[[nn.Module], list[Optimizer]]) -> dict[str, Tensor]:
    network = learner()

    def pictures(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(epoch)
        pairs = [(torch.randn(6, 3, 4, 4, generator=generator), torch.arange(6) % 2) for _ in range(STEPS)]
        yield from pairs[max(0, checkpoint.done - epoch * STEPS) :]

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(network.scale * logits, targets)  # type: ignore[operator]

    run(network, loss, pictures, optimizers=by(network), checkpoint=checkpoint)
    return network.state_dict()


@pytest.mark.parametrize("by", [lambda network: [adamw(network)], optimizers], ids=["AdamW", "two optimizers"])
def test_training_goes_on_from_any_step_to_the_very_same_weights(
    by: Callable[[nn.Module], list[Optimizer]],
) -> None:
    whole = learn(book := Notebook(), by)
    assert len(book.pages) == EPOCHS * STEPS
    for done, page in enumerate(book.pages, start=1):
        rest = Notebook(load(save(page)))  # as a file holds it
        again = learn(rest, by)
        assert (rest.done, len(rest.pages)) == (done, EPOCHS * STEPS - done)
        assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_what_is_kept_leaves_out_what_does_not_learn() -> None:
    network = nn.Sequential(nn.Linear(2, 7), nn.Linear(7, 2)).requires_grad_(False)
    network[1].requires_grad_(True)
    book = Notebook()
    run(network, epochs=1, checkpoint=book)
    assert {name for name in book.pages[0] if name.startswith("network")} == {"network.1.weight", "network.1.bias"}


def test_bfloat16_is_the_forward_pass_alone() -> None:
    network, seen = nn.Linear(2, 2), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return F.cross_entropy(logits, targets)

    run(network, loss, epochs=1, precision=torch.bfloat16)
    assert seen == [torch.bfloat16, torch.float32] * STEPS
    assert network.weight.dtype == torch.float32


def test_predictions_keep_the_order_of_the_images() -> None:
    batches = [torch.eye(3), torch.eye(3)[:1]]
    assert predict(torch.nn.Identity(), batches).tolist() == [0, 1, 2, 0]


def test_predictions_are_made_in_eval_mode_and_every_part_is_restored() -> None:
    network = nn.Sequential(nn.Dropout(1.0), nn.Identity())
    network[1].eval()
    assert predict(network, [torch.eye(4)]).tolist() == [0, 1, 2, 3]
    assert [module.training for module in (network, *network)] == [True, True, False]
