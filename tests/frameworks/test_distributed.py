"""A plain loop, Accelerate, Lightning and Hugging Face's Trainer under torchrun, in two processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from .conftest import COUNT, Witness
from .ranks import EPOCHS

RANKS = Path(__file__).with_name("ranks.py")
EVERY = [
    ("plain", "DataLoader"),
    ("plain", "HelloLoader"),
    ("accelerate", "sharded"),
    ("accelerate", "dispatched"),
    ("lightning", "DataLoader"),
    ("lightning", "HelloLoader"),
    ("transformers", "without workers"),
    ("transformers", "with workers"),
]


@pytest.fixture(scope="module")
def finished() -> dict[str, list[dict[str, Any]]]:
    """What was run already: by framework, what `ranks` chooses from by loader."""
    return {}


@pytest.fixture
def ranks(
    request: pytest.FixtureRequest, archive: Path, tmp_path: Path, finished: dict[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What each of two ranks saw and learned."""
    framework, loader = request.param
    if framework != "plain":
        pytest.importorskip(framework)
    if framework not in finished:
        file = str(tmp_path / "{}.pt")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        given = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*torchrun, RANKS, framework, archive, file], env=given, check=True)
        finished[framework] = [torch.load(file.format(rank), weights_only=True) for rank in range(2)]
    return [rank[loader] for rank in finished[framework]]


@pytest.mark.parametrize("ranks", EVERY, ids="-".join, indirect=True)
def test_ranks_see_halves_that_are_others_in_each_epoch(ranks: list[dict[str, Any]], witness: Witness) -> None:
    halves = []
    for rank in ranks:
        witness.seen = []
        for images, labels in rank["seen"]:
            witness(images, labels)
        halves.append([witness.seen[: COUNT // 2], witness.seen[COUNT // 2 :]])
    first = min(epoch for epoch, _ in halves[0][0])
    assert first in (0, EPOCHS[0])  # Lightning and the Trainer count by themselves
    for epoch in range(2):
        shown = [sample for half in halves for sample in half[epoch]]
        assert sorted(shown) == [(first + epoch, index) for index in range(COUNT)]
    assert {index for _, index in halves[0][0]} != {index for _, index in halves[0][1]}


@pytest.mark.parametrize("ranks", EVERY, ids="-".join, indirect=True)
def test_ranks_learn_the_same_student(ranks: list[dict[str, Any]], witness: Witness) -> None:
    students = []
    for seed, rank in enumerate(ranks):
        torch.manual_seed(seed)
        students.append(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
        before = witness.loss(students[-1])
        students[-1].load_state_dict(rank["student"])
        assert witness.loss(students[-1]) < 0.9 * before
    assert witness.loss(students[0]) == witness.loss(students[1])
