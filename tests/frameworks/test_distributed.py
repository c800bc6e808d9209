"""DistributedSampler and DistributedDataParallel under torchrun, in two processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from .conftest import COUNT, Witness

RANKS = Path(__file__).with_name("ranks.py")


@pytest.fixture(scope="module")
def ranks(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw and learnt, by loader."""
    file = str(tmp_path_factory.mktemp("ranks") / "{}.pt")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, RANKS, archive, file], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    return [torch.load(file.format(rank), weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("loader", ["DataLoader", "HelloLoader"])
def test_ranks_see_halves_that_are_others_in_each_epoch(
    loader: str, ranks: list[dict[str, Any]], witness: Witness
) -> None:
    halves = []
    for rank in ranks:
        witness.seen = []
        for images, labels in rank[loader]["seen"]:
            witness(images, labels)
        halves.append([witness.seen[: COUNT // 2], witness.seen[COUNT // 2 :]])
    for epoch in range(2):
        shown = [sample for half in halves for sample in half[epoch]]
        assert sorted(shown) == [(epoch, index) for index in range(COUNT)]
    assert {index for _, index in halves[0][0]} != {index for _, index in halves[0][1]}


@pytest.mark.parametrize("loader", ["DataLoader", "HelloLoader"])
def test_ranks_learn_the_same_student(loader: str, ranks: list[dict[str, Any]], witness: Witness) -> None:
    students = []
    for seed, rank in enumerate(ranks):
        torch.manual_seed(seed)
        students.append(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
        before = witness.loss(students[-1])
        students[-1].load_state_dict(rank[loader]["student"])
        assert witness.loss(students[-1]) < 0.9 * before
    assert witness.loss(students[0]) == witness.loss(students[1])
