"""Stages of a training answer as one, and are those that the training passed."""

import pytest
import torch
from torch import Tensor, nn

from hellods.sources.source import Pixels
from hellods.teachers.teacher import Teacher
from hellods.teachers.training import train_teacher
from hellods.teachers.trajectory import Average, Trajectory, average
from hellods.train import Checkpoint

from .shades import training

TARGETS = torch.arange(10).repeat_interleave(4)
PIXELS = (TARGETS * 25).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
SOURCE = Pixels("shades", tuple("abcdefghij"), TARGETS.tolist(), PIXELS)
IMAGES = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def trained(*stages: int, epochs: int = 3, checkpoint: Checkpoint | None = None) -> Teacher:
    return train_teacher(training(epochs, stages=stages), SOURCE, checkpoint=checkpoint or Checkpoint())


def test_average_answers_with_the_mean_of_logits() -> None:
    first, second = nn.Linear(4, 3), nn.Linear(4, 3)
    images = torch.randn(2, 4)
    torch.testing.assert_close(average([first, second])(images), (first(images) + second(images)) / 2)
    assert average([first]) is first


def test_stages_are_those_that_one_training_passed() -> None:
    one, three, both = trained(1), trained(3), trained(1, 3)
    torch.testing.assert_close(both(IMAGES), (one(IMAGES) + three(IMAGES)) / 2)
    assert not torch.equal(one(IMAGES), three(IMAGES))
    assert three.provenance() == train_teacher(training(3), SOURCE).provenance()


def test_training_ends_with_its_last_stage() -> None:
    assert 3 * steps(1) == steps(3)


def steps(*stages: int) -> int:
    """Return the steps that a training reports to have done at its end."""
    seen = []
    train_teacher(training(3, stages=stages), SOURCE, progress=lambda _, done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    return seen[-1][0]


class KilledError(Exception):
    pass


class Notes(Checkpoint):
    """Keeps every step, and is killed after one of them."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.noted = at, dict[str, Tensor]()

    def save(self, done: int, total: int, state: object) -> None:
        self.noted = {name: value.clone() for name, value in state().items()}  # type: ignore[operator]
        if done == self.at:
            raise KilledError


@pytest.mark.parametrize("after", [-1, 0, 1])
def test_training_that_goes_on_has_the_stages_of_one_that_was_never_stopped(after: int) -> None:
    notes = Notes(steps(1) + after)  # around the first stage
    with pytest.raises(KilledError):
        trained(1, 2, checkpoint=notes)
    on = trained(1, 2, checkpoint=Checkpoint(notes.noted))
    assert on.provenance() == trained(1, 2).provenance()


def test_copies_learn_nothing() -> None:
    trajectory = Trajectory(nn.Linear(4, 3), [1])
    assert {name for name, _ in trajectory.named_parameters()} == {"network.weight", "network.bias"}
    assert {name for name, _ in trajectory.named_buffers()} == {"stages.1.weight", "stages.1.bias"}
    trajectory.reach(1)
    before = trajectory.teacher()(torch.ones(1, 4))
    with torch.no_grad():
        trajectory.network.weight.add_(1.0)
    torch.testing.assert_close(trajectory.teacher()(torch.ones(1, 4)), before)
    assert not isinstance(trajectory.teacher(), Average)
