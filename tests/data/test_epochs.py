import pickle

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
    assert all(tensor.is_shared() for part in (epochs, copied) for tensor in vars(part).values())
    assert copied.take([0, 1]).tolist() == [1, 0]


def test_epochs_are_int64() -> None:
    epochs = Epochs(2)
    before = epochs.take([0])
    epochs.set(3)
    assert (before.dtype, epochs.take([0]).dtype) == (torch.int64, torch.int64)


def test_process_of_several_that_is_told_no_epoch_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module._tell.cache_clear()
    Epochs(2).take([0])
    monkeypatch.setattr(module, "ranks", lambda: (1, 2))
    told = Epochs(2)
    told.set(3)
    told.take([0])
    assert not caplog.messages
    for _ in range(2):
        Epochs(2).take([0])
    assert ["call set_epoch(epoch)" in message for message in caplog.messages] == [True]
    module._tell.cache_clear()
