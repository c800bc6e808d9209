import logging
import pickle
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from hellods.data import epochs as module
from hellods.data.epochs import Epochs


def test_epoch_is_how_often_an_index_was_drawn() -> None:
    epochs = Epochs(5)
    assert epochs.take([3, 0, 3, 4]).tolist() == [0, 0, 1, 0]
    assert epochs.take([4, 3, 1]).tolist() == [1, 2, 0]


def test_set_epoch_is_that_of_every_draw() -> None:
    epochs = Epochs(5)
    epochs.take([1, 2])
    epochs.set(6)
    assert epochs.take([1, 1, 0]).tolist() == [6, 6, 6]


@pytest.mark.parametrize("epoch", [-1, 1 << 31])
def test_epoch_out_of_range_is_refused(epoch: int) -> None:
    with pytest.raises(ValueError, match=f"epoch {epoch}"):
        Epochs(2).set(epoch)


def test_epoch_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(TypeError):
        Epochs(2).set(1.5)  # type: ignore[arg-type]


def test_counts_are_in_shared_memory_also_after_a_pickle() -> None:
    epochs = Epochs(3)
    epochs.take([0])
    copied = pickle.loads(pickle.dumps(epochs))
    tensors = [value for part in (epochs, copied) for value in vars(part).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6
    assert all(tensor.is_shared() for tensor in tensors)
    assert copied.take([0, 1]).tolist() == [1, 0]


def test_epochs_are_int64() -> None:
    epochs = Epochs(2)
    before = epochs.take([0])
    epochs.set(3)
    assert (before.dtype, epochs.take([0]).dtype) == (torch.int64, torch.int64)


def test_process_of_several_that_is_told_no_epoch_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Epochs(2).take([0])
    monkeypatch.setattr(module, "rank_and_world_size", lambda: (1, 2))
    told = Epochs(2)
    told.set(3)
    told.take([0])
    assert not caplog.messages
    epochs = Epochs(2)
    for _ in range(2):
        epochs.take([0])
    assert ["call set_epoch(epoch)" in message for message in caplog.messages] == [True]


def test_worker_of_one_process_of_several_warns_in_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    epochs = Epochs(2)
    monkeypatch.setattr(module, "rank_and_world_size", lambda: (1, 2))
    pickled = pickle.dumps(epochs)
    monkeypatch.setattr(module, "rank_and_world_size", lambda: (0, 1))  # a worker that is spawned has no process group
    pickle.loads(pickled).take([0])
    assert ["call set_epoch(epoch)" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_are_no_workers_count_for_themselves(method: str) -> None:
    epochs, context = Epochs(2), get_context(method)
    epochs.take([0])
    for work in (partial(epochs.take, [0, 1]), partial(epochs.set, 7), partial(epochs.load_state_dict, STATE)):
        process = context.Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
    assert epochs.take([0, 1]).tolist() == [1, 0]


@pytest.mark.parametrize("told", [False, True])
def test_process_that_was_started_with_counts_and_told_no_epoch_warns(told: bool, tmp_path: Path) -> None:
    epochs = Epochs(2)
    if told:
        epochs.set(3)

    def take() -> None:
        with (tmp_path / "said").open("w") as file:
            module.logger.addHandler(logging.StreamHandler(file))
            epochs.take([0])

    process = get_context("fork").Process(target=take)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert ("call set_epoch(epoch)" in (tmp_path / "said").read_text()) is not told


STATE = {"drawn": torch.full((2,), 9, dtype=torch.int32), "set": torch.tensor([9], dtype=torch.int32)}


def test_state_may_come_from_another_device() -> None:
    epochs, other = Epochs(2), Epochs(2)
    other.set(5)
    epochs.load_state_dict({name: Elsewhere(value) for name, value in other.state_dict().items()})  # type: ignore[misc]
    assert epochs.take([0]).tolist() == [5]


class Elsewhere:
    """A tensor that numpy cannot read before it is brought to the CPU."""

    def __init__(self, value: torch.Tensor) -> None:
        self._value = value

    def cpu(self) -> torch.Tensor:
        return self._value
