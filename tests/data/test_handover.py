import copy
import io
import os
import pickle
import re
import signal
from collections.abc import Callable
from itertools import islice
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

from hellods import HelloDataset, HelloError
from hellods.data import handover as module
from hellods.data.handover import Handover, Lent, reserve

from .conftest import COUNT

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory goes by a descriptor on Linux alone")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Handover:
    """What a worker inherited, in a process that says it is one."""
    monkeypatch.setattr(module, "get_worker_info", lambda: True)
    monkeypatch.setattr("torch.utils.data.get_worker_info", lambda: True)
    room = reserve()
    assert room is not None
    return Handover(room._memory, inherited=True)


def lent(room: Handover, value: float = 7.0) -> Lent:
    batch = room.lend((4, 3, 2, 2), torch.float32)
    assert batch is not None
    for place, image in enumerate(batch):
        image.fill_(value + place)
    return batch


def received(batch: Any) -> Any:
    return pickle.loads(ForkingPickler.dumps(batch))


def used(dataset: HelloDataset) -> int:
    """Return how many slots batches went through."""
    assert dataset._handover is not None
    return int((dataset._handover._turns > 0).sum())


def options(**changed: Any) -> dict[str, Any]:
    return {"batch_size": 6, "num_workers": 2, "multiprocessing_context": "fork"} | changed


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("normalize", [True, False])
def test_batches_of_workers_are_those_without(archive: Path, normalize: bool, start: str) -> None:
    alone = HelloDataset(archive, labels="hard", normalize=normalize)
    dataset = HelloDataset(archive, labels="hard", normalize=normalize)
    expected = list(DataLoader(alone, 6)) + list(DataLoader(alone, 6))
    loader = DataLoader(dataset, **options(multiprocessing_context=start, persistent_workers=True))
    found = list(loader) + list(loader)  # all kept, while slots are written to again
    assert 2 <= used(dataset) <= 4  # two workers, two batches each on their way
    for (images, targets), (expected_images, expected_targets) in zip(found, expected, strict=True):
        assert type(images) is Tensor
        assert torch.equal(images, expected_images)
        assert torch.equal(targets, expected_targets)


def test_slots_of_workers_that_are_gone_are_used_again(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard")
    for _ in range(5):
        for _ in islice(DataLoader(dataset, **options(batch_size=2, prefetch_factor=3)), 2):  # others are on their way
            pass
    assert used(dataset) <= 6


class Killed(Dataset[Any]):
    """A data set whose first worker dies in the middle of the last image."""

    def __init__(self, dataset: HelloDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return COUNT

    def __getitems__(self, indices: list[int]) -> list[Any]:
        batch = self.dataset.__getitems__(indices)
        if COUNT - 1 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


# torch's handler of signals raises wherever it finds the process, in a callback of the garbage collector too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_so_are_those_of_a_worker_that_was_killed(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard")
    for _ in range(3):
        with pytest.raises((RuntimeError, EOFError, OSError)):  # whichever torch notices first
            list(DataLoader(Killed(dataset), **options(num_workers=1)))
    before = used(dataset)
    assert before <= 3
    dataset.set_epoch(0)
    assert len(list(DataLoader(dataset, **options(num_workers=1)))) == 4
    assert used(dataset) <= max(before, 2)


def test_two_loaders_of_one_data_set_at_a_time(archive: Path) -> None:
    dataset, alone = HelloDataset(archive, labels="hard", mix="none"), HelloDataset(archive, labels="hard")
    dataset.set_epoch(0)
    alone.set_epoch(0)
    expected = list(DataLoader(alone, 4))
    pairs = zip(
        DataLoader(dataset, **options(batch_size=4)),
        DataLoader(dataset, **options(batch_size=4)),
        expected,
        strict=True,
    )
    for one, other, batch in pairs:
        assert torch.equal(one[0], batch[0])
        assert torch.equal(other[0], batch[0])


def _doubled(samples: list[Any]) -> Any:
    images, targets = default_collate(samples)
    return images.mul_(2), targets


def _backwards(samples: list[Any]) -> Any:
    return default_collate(samples[::-1])


def _first_two(samples: list[Any]) -> Any:
    return default_collate(samples[:2])


def _both(samples: list[Any]) -> Any:
    images, targets = default_collate(samples)
    return images, targets, images


def _turned(samples: list[Any]) -> Any:
    images, _ = default_collate(samples)
    return images.transpose_(2, 3)


def _rows_turned(samples: list[Any]) -> Any:
    for image, _ in samples:
        image.transpose_(1, 2)
    return default_collate(samples)


def _rows_replaced(samples: list[Any]) -> Any:
    for image, _ in samples:
        image.set_(image.flip(-1))
    return default_collate(samples)


def _two_batches(samples: list[Any]) -> Any:
    first, second = default_collate(samples)[0], default_collate(samples)[0]
    return first.mul_(3), second


def _stacked(samples: list[Any]) -> Any:
    return torch.stack([image for image, _ in samples]).mul_(2), samples


COLLATED: dict[str, Callable[[list[Any]], Any]] = {
    "as they are": list,
    "changed in place": _doubled,
    "turned in place": _turned,
    "turned rows": _rows_turned,
    "replaced rows": _rows_replaced,
    "two batches of the same": _two_batches,
    "stacked": _stacked,
    "backwards": _backwards,
    "some": _first_two,
    "one batch twice": _both,
}


@pytest.mark.parametrize("way", COLLATED)
def test_whatever_a_collate_fn_does(way: str, archive: Path) -> None:
    collate = COLLATED[way]
    expected = list(DataLoader(HelloDataset(archive, labels="hard"), 6, collate_fn=collate))
    found = list(DataLoader(HelloDataset(archive, labels="hard"), **options(collate_fn=collate)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def _inverted(image: Tensor) -> Tensor:
    return -image


PARTS: dict[str, Callable[[HelloDataset], Any]] = {
    "subset": lambda dataset: Subset(dataset, [3, 1, 2, 0, 19, 5, 4]),
    "concatenated": lambda dataset: ConcatDataset([dataset, dataset]),
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_a_data_set(part: str, archive: Path) -> None:
    expected, found = (HelloDataset(archive, labels="hard") for _ in range(2))
    expected.set_epoch(0)
    found.set_epoch(0)
    torch.testing.assert_close(
        list(DataLoader(PARTS[part](found), **options())), list(DataLoader(PARTS[part](expected), 6)), rtol=0, atol=0
    )


def test_images_that_a_transform_made_go_as_any_tensor(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard", transform=_inverted)
    expected = list(DataLoader(HelloDataset(archive, labels="hard", transform=_inverted), 6))
    torch.testing.assert_close(list(DataLoader(dataset, **options())), expected, rtol=0, atol=0)
    assert used(dataset) == 0


def test_where_a_system_has_no_such_memory(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(DataLoader(HelloDataset(archive, labels="hard"), 6))
    monkeypatch.setattr("hellods.data.memory._descriptor", lambda: None)
    dataset = HelloDataset(archive, labels="hard")
    assert dataset._handover is None
    for start in ("fork", "spawn"):
        dataset.set_epoch(0)
        found = list(DataLoader(dataset, **options(multiprocessing_context=start)))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Opened(Dataset[Any]):
    """What opens an archive in each worker, so the process that they work for has no data set."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return COUNT

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return HelloDataset(self.path, labels="hard").__getitems__(indices)


def test_a_data_set_that_only_the_workers_have(archive: Path) -> None:
    expected = list(DataLoader(HelloDataset(archive, labels="hard"), 6))
    torch.testing.assert_close(list(DataLoader(Opened(archive), **options())), expected, rtol=0, atol=0)


def test_larger_batches_than_there_is_room_for(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = HelloDataset(archive, labels="hard")
    expected = list(DataLoader(HelloDataset(archive, labels="hard"), 6))
    monkeypatch.setattr(module, "SLOT", 1 << 13)  # less than 6 views of 12 px
    torch.testing.assert_close(list(DataLoader(dataset, **options())), expected, rtol=0, atol=0)
    assert used(dataset) == 1  # the last batch, of two


def test_a_worker_takes_no_more_memory_than_its_share(room: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4 * 4 * 3 * 2 * 2
    monkeypatch.setattr(module, "room", lambda device: 2 * size)
    kept = [lent(room), lent(room)]
    assert room.lend((4, 3, 2, 2), torch.float32) is None
    del kept[0]
    assert room.lend((4, 3, 2, 2), torch.float32) is not None


def test_there_is_none_where_addresses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1 << 36, resource.RLIM_INFINITY))
    assert reserve() is None


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says there what is in a core dump")
def test_it_is_in_no_core_dump(room: Handover) -> None:
    lent(room)
    maps = Path("/proc/self/smaps").read_text().split("memfd:hellods")[1:]
    flags = [re.search(r"^VmFlags:(.*)$", part, re.MULTILINE) for part in maps]
    assert flags
    assert all(found and "dd" in found[1].split() for found in flags)


def test_a_slot_is_free_when_its_batch_was_received(room: Handover) -> None:
    batch = lent(room)
    place = batch.data_ptr()
    sent = ForkingPickler.dumps(batch)
    del batch
    other = lent(room, 20.0)
    assert other.data_ptr() != place  # that one is on its way
    images = pickle.loads(sent)
    assert images[:, 0, 0, 0].tolist() == [7, 8, 9, 10]
    assert lent(room, 30.0).data_ptr() == place
    assert images[:, 0, 0, 0].tolist() == [7, 8, 9, 10]  # a copy


def test_a_slot_that_was_never_sent_is_free(room: Handover) -> None:
    batch = lent(room)
    place, row = batch.data_ptr(), batch.rows()[2]
    del batch
    assert lent(room).data_ptr() != place
    del row
    assert lent(room).data_ptr() == place


def test_rows_become_their_batch(room: Handover) -> None:
    batch = lent(room)
    collated = default_collate(batch.rows())
    assert collated is batch
    assert received(collated)[:, 0, 0, 0].tolist() == [7, 8, 9, 10]


def test_a_batch_that_is_on_its_way_goes_as_any_tensor_the_second_time(room: Handover) -> None:
    batch = lent(room)
    first, second = ForkingPickler.dumps(batch), ForkingPickler.dumps(batch)
    assert torch.equal(pickle.loads(first), pickle.loads(second))


def test_so_does_one_that_is_in_other_memory(room: Handover) -> None:
    batch = lent(room)
    batch.share_memory_()
    assert room.send(batch) is None
    assert received(batch)[:, 0, 0, 0].tolist() == [7, 8, 9, 10]


def test_a_batch_is_received_once(room: Handover) -> None:
    sent = ForkingPickler.dumps(lent(room))
    pickle.loads(sent)
    with pytest.raises(HelloError, match=r"^a batch of images was received after .* had ended, or twice$"):
        pickle.loads(sent)


def test_a_slot_comes_back_when_receiving_is_interrupted(room: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = lent(room)
    place, sent = batch.data_ptr(), ForkingPickler.dumps(batch)
    del batch

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "copyto", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pickle.loads(sent)
    assert lent(room).data_ptr() == place


def test_a_batch_of_a_data_set_that_is_gone(monkeypatch: pytest.MonkeyPatch, room: Handover) -> None:
    sent = ForkingPickler.dumps(lent(room))
    monkeypatch.setattr(module, "HANDOVERS", {})
    with pytest.raises(HelloError, match=r"the HelloDataset of these images is gone"):
        pickle.loads(sent)


@pytest.mark.parametrize("part", ["batch", "row"])
def test_to_all_else_they_are_plain_tensors(part: str, room: Handover) -> None:
    images: Tensor = lent(room) if part == "batch" else lent(room).rows()[1]
    plain = images.as_subclass(Tensor)
    for value in (
        images + 1,
        images.clone(),
        copy.copy(images),
        copy.deepcopy(images),
        images[:1],
        torch.stack([images]),
    ):
        assert type(value) is Tensor
    assert torch.equal(torch.cat([images, images]), torch.cat([plain, plain]))
    saved = io.BytesIO()
    torch.save(images, saved)
    saved.seek(0)
    found = torch.load(saved, weights_only=True)
    assert type(found) is Tensor
    assert torch.equal(found, plain)
    assert type(pickle.loads(pickle.dumps(images))) is Tensor


def test_only_workers_get_any() -> None:
    room = reserve()
    assert room is not None
    assert room.lend((1,), torch.float32) is None


def test_a_copy_of_a_data_set_has_room_of_its_own(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard")
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert other._handover is not dataset._handover
        assert other._handover._key != dataset._handover._key


def test_a_slot_belongs_to_one_process(room: Handover) -> None:
    first = lent(room)  # alive in both
    if (child := os.fork()) == 0:
        code = 1
        try:
            code = 0 if lent(room).data_ptr() != first.data_ptr() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
