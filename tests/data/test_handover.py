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
from torch.utils.data._utils.collate import default_collate_fn_map
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import horizontal_flip

from hellods import HelloDataset, HelloError
from hellods.data import handover as module
from hellods.data.handover import Handover, LazyImages, reserve
from hellods.views.normalize import normalize

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


VIEWS = torch.arange(48, dtype=torch.uint8).view(4, 3, 2, 2)
SCALE = (0.25, 0.5, 0.75), (0.5, 1.0, 2.0)
IMAGES = normalize(VIEWS, *SCALE)


def lent(room: Handover) -> list[LazyImages]:
    images = room.lend(VIEWS, SCALE)
    assert images is not None
    return images


def slot(images: list[LazyImages]) -> int:
    return images[0]._lent.slot


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


def _changed_after(samples: list[Any]) -> Any:
    batch = default_collate(samples)
    for image, _ in samples:
        image.zero_()
    return batch


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
    "changed after collating": _changed_after,
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
    monkeypatch.setattr(module, "SLOT", 1 << 11)  # less than 6 views of 12 px
    torch.testing.assert_close(list(DataLoader(dataset, **options())), expected, rtol=0, atol=0)
    assert used(dataset) == 1  # the last batch, of two


def test_a_worker_takes_no_more_memory_than_its_share(room: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "room", lambda device: 2 * VIEWS.nbytes)
    kept = [lent(room), lent(room)]
    assert room.lend(VIEWS, SCALE) is None
    del kept[0]
    assert room.lend(VIEWS, SCALE) is not None


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
    images = lent(room)
    first = slot(images)
    sent = ForkingPickler.dumps(default_collate(images))
    del images
    other = room.lend(VIEWS + 1, SCALE)
    assert other is not None
    assert slot(other) != first  # that one is on its way
    found = pickle.loads(sent)
    assert torch.equal(found, IMAGES)
    again = room.lend(VIEWS + 2, SCALE)
    assert again is not None
    assert slot(again) == first
    assert torch.equal(found, IMAGES)  # a copy


def test_a_slot_that_was_never_sent_is_free(room: Handover) -> None:
    images = lent(room)
    first, image = slot(images), images[2]
    del images
    assert slot(lent(room)) != first
    del image
    assert slot(lent(room)) == first


def test_images_become_their_batch(room: Handover) -> None:
    collated = default_collate(lent(room))
    assert isinstance(collated, LazyImages)
    assert collated.shape == VIEWS.shape
    assert len(ForkingPickler.dumps(collated)) < 1000
    found = received(collated)
    assert type(found) is Tensor
    assert torch.equal(found, IMAGES)


def test_images_that_go_alone_are_one_memory(room: Handover) -> None:
    """Or each would take a descriptor, of which a process has few."""
    images = lent(room)
    places = {image.untyped_storage().data_ptr() for image in images}
    assert len(places) == 1
    batch = default_collate(images)
    batch.zero_()
    assert torch.equal(torch.stack(images), IMAGES)


def _flipped(batch: list[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    return torch.stack(batch).flip(-1)


def test_who_stacks_tensors_otherwise_is_asked(room: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(default_collate_fn_map, Tensor, _flipped)
    assert torch.equal(default_collate(lent(room)), IMAGES.flip(-1))


def test_they_become_other_kinds_of_tensors(room: Handover) -> None:
    like = tv_tensors.Image(torch.zeros(3, 2, 2))
    assert torch.equal(tv_tensors.wrap(lent(room)[1], like=like), IMAGES[1])
    assert torch.equal(tv_tensors.Image(lent(room)[1]), IMAGES[1])


def test_who_looks_for_memory_where_none_is_gets_an_error(room: Handover) -> None:
    with pytest.raises(RuntimeError, match="data pointer"):
        torch.utils.dlpack.to_dlpack(lent(room)[0])  # type: ignore[attr-defined]
    assert torch.equal(torch.from_dlpack(lent(room)[0]), IMAGES[0])


def test_large_images_alone(room: Handover) -> None:
    views = torch.arange(2 * 3 * 400 * 600).view(2, 3, 400, 600).to(torch.uint8)
    images = room.lend(views, SCALE)
    assert images is not None
    for image, expected in zip(images, normalize(views, *SCALE), strict=True):
        assert torch.equal(image, expected)


def test_those_that_are_not_normalized_travel_as_they_are(room: Handover) -> None:
    images = room.lend(VIEWS, None)
    assert images is not None
    assert torch.equal(images[3], VIEWS[3])
    assert torch.equal(received(default_collate(room.lend(VIEWS, None))), VIEWS)


def test_what_is_changed_in_place_is_what_travels(room: Handover) -> None:
    images = lent(room)
    images[1].mul_(2)
    assert torch.equal(received(default_collate(images)), IMAGES * torch.tensor([1, 2, 1, 1])[:, None, None, None])
    batch = default_collate(lent(room))
    batch.add_(1)
    assert torch.equal(received(batch), IMAGES + 1)


def test_a_batch_stays_as_it_was_collated(room: Handover) -> None:
    images = lent(room)
    first, second = default_collate(images), default_collate(images)
    images[0].zero_()
    first.mul_(3)
    assert torch.equal(received(first), IMAGES * 3)
    assert torch.equal(received(second), IMAGES)


def test_a_batch_that_is_on_its_way_goes_as_any_tensor_the_second_time(room: Handover) -> None:
    batch = default_collate(lent(room))
    first, second = ForkingPickler.dumps(batch), ForkingPickler.dumps(batch)
    assert torch.equal(pickle.loads(first), pickle.loads(second))


def test_a_batch_is_received_once(room: Handover) -> None:
    sent = ForkingPickler.dumps(default_collate(lent(room)))
    pickle.loads(sent)
    with pytest.raises(HelloError, match=r"^a batch of images was received after .* had ended, or twice$"):
        pickle.loads(sent)


def test_a_slot_comes_back_when_receiving_is_interrupted(room: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    images = lent(room)
    first, sent = slot(images), ForkingPickler.dumps(default_collate(images))
    del images

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "normalize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pickle.loads(sent)
    assert slot(lent(room)) == first


def test_a_batch_of_a_data_set_that_is_gone(monkeypatch: pytest.MonkeyPatch, room: Handover) -> None:
    sent = ForkingPickler.dumps(default_collate(lent(room)))
    monkeypatch.setattr(module, "HANDOVERS", {})
    with pytest.raises(HelloError, match=r"the HelloDataset of these images is gone"):
        pickle.loads(sent)


def _scripted(images: Tensor) -> Tensor:
    return images * 2 - images.size(-1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.parametrize("part", ["batch", "image"])
def test_to_all_else_they_are_float32_tensors(part: str, room: Handover) -> None:
    def images() -> Tensor:
        """Return them anew, without values."""
        found: Tensor = default_collate(lent(room)) if part == "batch" else lent(room)[1]
        return found

    expected = IMAGES if part == "batch" else IMAGES[1]
    for fact in ("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout", "nbytes"):
        assert getattr(images(), fact) == getattr(expected, fact)
    for stays in (lambda value: value.numel(), len, Tensor.stride, Tensor.is_contiguous, torch.is_floating_point):
        assert stays(images()) == stays(expected)
    made: dict[str, tuple[Any, Any]] = {
        "sum": (images() + 1, expected + 1),
        "clone": (images().clone(), expected),
        "copy": (copy.copy(images()), expected),
        "deepcopy": (copy.deepcopy(images()), expected),
        "slice": (images()[:1], expected[:1]),
        "stack": (torch.stack([images()]), expected[None]),
        "cat": (torch.cat([images(), expected]), torch.cat([expected, expected])),
        "pickle": (pickle.loads(pickle.dumps(images())), expected),
        "script": (torch.jit.script(_scripted)(images()), _scripted(expected)),
        "vmap": (torch.func.vmap(torch.neg)(images()), -expected),
        "copied from": (torch.empty(expected.shape).copy_(images()), expected),
        "flipped by torchvision": (horizontal_flip(images()), horizontal_flip(expected)),
        "on no device": (images().to("meta").shape, expected.shape),
    }
    for way, (found, wanted) in made.items():
        if isinstance(wanted, Tensor):
            assert type(found) is Tensor, way
            assert torch.equal(found, wanted), way
        else:
            assert found == wanted, way
    assert np.array_equal(np.asarray(images()), expected.numpy())
    assert np.array_equal(images().numpy(), expected.numpy())
    assert repr(images()) == repr(expected)
    assert [row.tolist() for row in images()] == expected.tolist()
    saved = io.BytesIO()
    torch.save(images(), saved)
    saved.seek(0)
    assert torch.equal(torch.load(saved, weights_only=True), expected)


def test_only_workers_get_any() -> None:
    room = reserve()
    assert room is not None
    assert room.lend(VIEWS, SCALE) is None


def test_a_copy_of_a_data_set_has_room_of_its_own(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard")
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert other._handover is not dataset._handover
        assert other._handover.key != dataset._handover.key


def test_a_slot_belongs_to_one_process(room: Handover) -> None:
    first = lent(room)  # alive in both
    if (child := os.fork()) == 0:
        code = 1
        try:
            code = 0 if slot(lent(room)) != slot(first) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
