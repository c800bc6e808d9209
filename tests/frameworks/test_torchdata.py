"""torchdata's StatefulDataLoader, saved in the middle of an epoch and resumed."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hellods import HelloDataset

from .conftest import COUNT, Witness

stateful = pytest.importorskip("torchdata.stateful_dataloader")
pytestmark = pytest.mark.filterwarnings("default")  # torchdata's own


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_loader_goes_on_with_the_next_batch(
    workers: int, archive: Path, witness: Witness, student: nn.Module, learns: Callable[[], None], tmp_path: Path
) -> None:
    def fresh() -> Any:
        torch.manual_seed(0)
        return stateful.StatefulDataLoader(HelloDataset(archive), 4, shuffle=True, num_workers=workers)

    def run(loader: Any, epochs: range) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for epoch in epochs:
            loader.dataset.set_epoch(epoch)
            yield from loader

    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    for images, labels in run(fresh(), range(2)):
        witness(images, labels.to("cpu"))
        optimizer.zero_grad()
        cross_entropy(student(images), labels).backward()
        optimizer.step()
    learns()
    expected, witness.seen = witness.seen, []

    first = fresh()
    for images, labels in islice(run(first, range(2)), COUNT // 4 + 2):
        witness(images, labels.to("cpu"))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = fresh()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for images, labels in run(second, range(1, 2)):
        witness(images, labels.to("cpu"))
    assert witness.seen == expected
