import copy
import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Subset

from hellods import HelloDataset, HelloLoader

COUNT = 20  # images in the archive that conftest.py writes
OPTIONS = [{}, {"mix": "mixup"}, {"views": 1}, {"train": False}, {"view": None}, {"labels": "hard"}]


def targets(batches: Iterable[Any]) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches]


@given(
    order=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=30),
    batch_size=st.integers(1, 32),
    drop_last=st.booleans(),
    epochs=st.integers(1, 2),
)
@settings(max_examples=15, derandomize=True, deadline=None)
def test_batches_are_those_of_a_data_loader_with_the_same_sampler(
    archive: Path, order: list[int], batch_size: int, drop_last: bool, epochs: int
) -> None:
    ours = HelloLoader(HelloDataset(archive), batch_size, sampler=order, drop_last=drop_last)
    theirs = DataLoader(HelloDataset(archive), batch_size, sampler=order, drop_last=drop_last)
    assert len(ours) == len(theirs)
    for _ in range(epochs):
        for (image, label), (expected_image, expected_label) in zip(ours, theirs, strict=True):
            assert torch.equal(image, expected_image)
            assert torch.equal(label, expected_label.to("cpu"))


def test_hard_labels_and_transform_are_those_of_a_data_loader(archive: Path) -> None:
    options = {"labels": "hard", "transform": torch.Tensor.numpy, "normalize": False}
    (ours,) = HelloLoader(HelloDataset(archive, **options), COUNT)
    (theirs,) = DataLoader(HelloDataset(archive, **options), COUNT)
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("loader", [HelloLoader, DataLoader])
def test_loads_in_inference_mode_and_after_it(archive: Path, loader: Any) -> None:
    with torch.inference_mode():
        batches = loader(HelloDataset(archive, views=2), 8)
        inside = [(images.clone(), labels.clone()) for images, labels in batches]
    outside = list(batches) + list(batches)  # the second views, and the first again, whose labels are kept
    for (images, labels), (again, kept) in zip(inside, outside[len(inside) :], strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, kept.to("cpu"))


def test_a_label_maker_from_inference_mode_is_used_after_it(archive: Path) -> None:
    dataset = HelloDataset(archive)
    with torch.inference_mode():
        dataset.batch([0])
    label_maker = dataset._samples.projector(torch.device("cpu"))
    assert not any(value.is_inference() for value in (*label_maker.parameters(), *label_maker.buffers()))
    dataset.batch([0])


def test_a_data_set_that_was_copied_in_inference_mode_takes_an_epoch_after_it(archive: Path) -> None:
    with torch.inference_mode():
        dataset = copy.deepcopy(HelloDataset(archive))
    dataset.set_epoch(3)
    state = dataset._epochs.state_dict()
    dataset._epochs.load_state_dict(state)
    assert dataset._epochs.state_dict()["set"].item() == 3


def test_a_first_batch_in_inference_mode_leaves_the_rest_for_later(archive: Path) -> None:
    dataset = HelloDataset(archive)
    with torch.inference_mode():
        next(iter(HelloLoader(dataset, 2)))
        other = HelloDataset(archive)
    assert sum(len(images) for images, _ in HelloLoader(dataset, 4)) == len(dataset)
    other.set_epoch(3)
    pickle.loads(pickle.dumps(other)).set_epoch(3)


def test_draws_count_for_the_data_set(archive: Path) -> None:
    dataset, other = HelloDataset(archive), HelloDataset(archive)
    list(HelloLoader(dataset, 8))
    other.set_epoch(1)
    assert torch.equal(dataset[5][0], other[5][0])


def test_shuffle_draws_every_index_once(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard")
    targets = torch.cat([labels for _, labels in HelloLoader(dataset, 6, shuffle=True)]).tolist()
    assert targets != dataset.targets
    assert sorted(targets) == sorted(dataset.targets)


def test_labels_carry_no_gradient(archive: Path) -> None:
    _, labels = next(iter(HelloLoader(HelloDataset(archive), 4)))
    assert (type(labels), labels.requires_grad) == (torch.Tensor, False)


def test_batch_sampler_is_refused_with_a_remedy(archive: Path) -> None:
    with pytest.raises(ValueError, match="batch sampler's own"):
        HelloLoader(HelloDataset(archive), 4, sampler=BatchSampler([1, 2], 2, drop_last=False))  # type: ignore[arg-type]


def test_shuffle_and_sampler_exclude_each_other(archive: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        HelloLoader(HelloDataset(archive), 4, shuffle=True, sampler=[1, 2])


def test_other_data_sets_are_refused_with_a_remedy(archive: Path) -> None:
    for dataset in (Subset(HelloDataset(archive), [1, 2]), str(archive)):
        with pytest.raises(TypeError, match=r"takes a HelloDataset, not .* as sampler="):
            HelloLoader(dataset, 4)  # type: ignore[arg-type]


def test_shuffle_is_another_order_in_each_pass_and_the_same_for_the_same_seed(archive: Path) -> None:
    loaders = [HelloLoader(HelloDataset(archive, labels="hard", seed=seed), COUNT, shuffle=True) for seed in (1, 1, 2)]
    orders = [[labels.tolist() for _, labels in (*loader, *loader)] for loader in loaders]
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]
    assert orders[0][0] != orders[2][0]


def test_set_epoch_sets_order_and_views(archive: Path) -> None:
    ours, theirs = (HelloLoader(HelloDataset(archive), 8, shuffle=True) for _ in range(2))
    list(ours)
    ours.set_epoch(1)
    theirs.set_epoch(1)
    for (image, label), (expected_image, expected_label) in zip(ours, theirs, strict=True):
        assert torch.equal(image, expected_image)
        assert torch.equal(label, expected_label)


@pytest.mark.parametrize("given", [False, True])
def test_passes_after_set_epoch_are_the_epochs_after_it(given: bool, archive: Path) -> None:
    dataset = HelloDataset(archive)
    sampler = DistributedSampler(dataset, 1, 0) if given else None
    loader = HelloLoader(dataset, 4, shuffle=not given, sampler=sampler)
    loader.set_epoch(5)
    following = [[images for images, _ in loader] for _ in range(3)]
    for epoch, found in enumerate(following, start=5):
        loader.set_epoch(epoch)
        assert all(torch.equal(one, other) for one, (other, _) in zip(found, loader, strict=True))


def test_resumed_loader_still_begins_the_next_epoch_with_the_next_pass(archive: Path) -> None:
    first, second = (HelloLoader(HelloDataset(archive), 4, shuffle=True) for _ in range(2))
    first.set_epoch(5)
    running = iter(first)
    next(running)
    second.load_state_dict(first.state_dict())
    rest, others = list(running), list(second)
    assert len(rest) == len(others) == len(first) - 1
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert first.dataset._epochs.state_dict()["set"].item() == second.dataset._epochs.state_dict()["set"].item() == 6


def test_set_epoch_of_the_sampler_sets_order_and_views(archive: Path) -> None:
    ours, theirs = (HelloLoader(HelloDataset(archive), 8, shuffle=True) for _ in range(2))
    list(ours)
    ours.sampler.set_epoch(3)
    theirs.set_epoch(3)
    for (image, label), (expected_image, expected_label) in zip(ours, theirs, strict=True):
        assert torch.equal(image, expected_image)
        assert torch.equal(label, expected_label)


def test_set_epoch_reaches_the_sampler_that_is_given(archive: Path) -> None:
    dataset = HelloDataset(archive)
    sampler = DistributedSampler(dataset, num_replicas=2, rank=1)
    HelloLoader(dataset, 4, sampler=sampler).set_epoch(5)
    assert sampler.epoch == 5


def test_ranks_share_a_pass(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard")
    samplers = [DistributedSampler(dataset, num_replicas=2, rank=rank, seed=3) for rank in range(2)]
    targets = [label for sampler in samplers for _, label in HelloLoader(dataset, 5, sampler=sampler)]
    assert sorted(torch.cat(targets).tolist()) == sorted(dataset.targets)


def test_loader_made_before_the_process_group_draws_the_share_of_its_rank(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = HelloLoader(HelloDataset(archive, labels="hard"), 5)
    assert len(loader) == 4
    for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": 1}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    assert len(loader) == 2
    assert targets(loader) == [[1, 3, 5, 7, 9], [1, 3, 5, 7, 9]]


def test_ranks_see_other_views_when_only_samplers_are_told_the_epoch(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaders = [HelloLoader(HelloDataset(archive, labels="hard"), 5, shuffle=True) for _ in range(2)]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    seen = set()
    for epoch in range(4):
        for rank, loader in enumerate(loaders):
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            loader.sampler.set_epoch(epoch)
            seen |= {image.numpy().tobytes() for images, _ in loader for image in images}
    assert len(seen) == 4 * COUNT


@pytest.mark.parametrize("room", [1 << 30, 100], ids=["resident", "decoded ahead"])
@pytest.mark.parametrize("fixed", [False, True], ids=["counted epochs", "set epochs"])
@pytest.mark.parametrize("batches", [0, 1, 3, 4, 6])
def test_resumed_loader_goes_on_with_the_next_batch(
    batches: int, fixed: bool, room: int, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hellods.data.memory.room", lambda device: room)

    def run(loader: HelloLoader, epochs: range) -> Iterator[tuple[Any, torch.Tensor]]:
        for epoch in epochs:
            if fixed:
                loader.set_epoch(epoch)
            yield from loader

    def fresh() -> HelloLoader:
        return HelloLoader(HelloDataset(archive, labels="hard"), 6, shuffle=True)

    whole = fresh()
    expected = list(run(whole, range(3)))
    first = fresh()
    list(islice(run(first, range(3)), batches))
    data = io.BytesIO()
    torch.save(first.state_dict(), data)
    data.seek(0)
    second = fresh()
    second.load_state_dict(torch.load(data, weights_only=True))
    found = list(run(second, range(batches // len(whole), 3)))
    for (image, label), (expected_image, expected_label) in zip(found, expected[batches:], strict=True):
        assert torch.equal(image, expected_image)
        assert torch.equal(label, expected_label)


def test_loader_says_what_loops_ask_for(archive: Path) -> None:
    loader = HelloLoader(HelloDataset(archive), 4, drop_last=True)
    assert (loader.batch_size, loader.drop_last) == (4, True)


def test_state_of_another_loader_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = HelloLoader(HelloDataset(archive), 4, shuffle=True).state_dict()
    with pytest.raises(ValueError, match="of another loader: batch_size 4 instead of 5, shuffle True instead of False"):
        HelloLoader(HelloDataset(archive), 5).load_state_dict(state)
    with pytest.raises(ValueError, match="of another loader: seed 0 instead of 1"):
        HelloLoader(HelloDataset(archive, seed=1), 4, shuffle=True).load_state_dict(state)
    for garbage in ({}, {"loader": state["loader"]}, None):
        with pytest.raises(ValueError, match=r"no state of a HelloLoader: give what state_dict\(\) returned"):
            HelloLoader(HelloDataset(archive), 4, shuffle=True).load_state_dict(garbage)
    monkeypatch.setattr("hellods.data.loader.rank_and_world_size", lambda: (0, 2))
    with pytest.raises(ValueError, match="of another loader: ranks 1 instead of 2"):
        HelloLoader(HelloDataset(archive), 4, shuffle=True).load_state_dict(state)


def test_epoch_that_was_complete_when_saved_has_no_batch_left(archive: Path) -> None:
    first, second = (HelloLoader(HelloDataset(archive, labels="hard"), 6, shuffle=True) for _ in range(2))
    first.set_epoch(2)
    batches = iter(first)
    for _ in range(len(first)):
        next(batches)
    second.load_state_dict(first.state_dict())
    second.set_epoch(2)
    first.set_epoch(3)
    assert targets(second) == []
    assert targets(second) == targets(first)


def test_pass_that_was_left_early_is_followed_by_a_whole_one(archive: Path) -> None:
    loader = HelloLoader(HelloDataset(archive, labels="hard"), 8, shuffle=True)
    left = next(iter(loader))[1]
    batches = [labels for _, labels in loader]
    assert len(torch.cat(batches)) == COUNT
    assert not torch.equal(batches[0], left)


@pytest.mark.parametrize("room", [1 << 30, 100], ids=["resident", "decoded ahead"])
def test_pass_within_a_pass_leaves_it_as_it_was(archive: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellods.data.memory.room", lambda device: room)
    loaders = [HelloLoader(HelloDataset(archive, labels="hard"), 6, shuffle=True) for _ in range(2)]
    outer, inner, after = (targets(loaders[0]) for _ in range(3))
    found = []
    for number, (_, labels) in enumerate(loaders[1]):
        found.append(labels.tolist())
        if number == 1:
            assert targets(loaders[1]) == inner
    assert (found, targets(loaders[1])) == (outer, after)


def test_state_within_two_passes_is_that_of_the_later(archive: Path) -> None:
    loader, other = (HelloLoader(HelloDataset(archive, labels="hard"), 6, shuffle=True) for _ in range(2))
    outer, inner = iter(loader), iter(loader)
    for batches in (outer, inner, outer):
        next(batches)
    other.load_state_dict(loader.state_dict())
    assert targets(other) == targets(inner)


class Transfers(TorchDispatchMode):
    """Notes what brings values from the host to `meta`, which stands for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {value.device.type for value in tree_leaves((args, out)) if isinstance(value, torch.Tensor)}
        if devices == {"cpu", "meta"} or (devices == {"meta"} and func is torch.ops.aten.lift_fresh.default):
            self.seen.append(func.name())
        return out


def warm(loader: HelloLoader) -> None:
    """Bring all images to the device in one pass, and in another the constants that views are drawn with there."""
    _ = list(loader), list(loader)


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 0), ("meta", 1)])
def test_batches_are_made_one_ahead_of_who_takes_them_but_on_a_cpu(device: str, ahead: int, archive: Path) -> None:
    made = []
    dataset = HelloDataset(archive, labels="hard", transform=lambda image: made.append(1) or image)
    loader = HelloLoader(dataset, 5, device=device)
    warm(loader)
    made.clear()
    counts = [len(made) for _ in loader]
    assert counts == [5 * min(taken + ahead, len(loader)) for taken in range(1, len(loader) + 1)]


@pytest.mark.parametrize("options", OPTIONS)
def test_batch_sends_only_its_draws_and_what_the_host_knows_of_its_labels(
    options: dict[str, Any], make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hellods.labels.projector.exact", lambda _: nullcontext())
    dataset = HelloDataset(make(tmp_path / "x.hello", sections={"probe": b""}), **options)
    dataset.batch(range(COUNT))  # keeps the labels that are kept
    loader = HelloLoader(dataset, 5, device="meta")
    warm(loader)
    with Transfers() as transfers:
        batches = len(list(loader))
    known = options.keys() & {"views", "train", "view", "labels"}
    assert transfers.seen == ["aten::_to_copy"] * batches * (3 if known else 2)  # epochs, indices and labels


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("fixed", [False, True], ids=["counted epochs", "set epochs"])
def test_pass_over_images_on_the_gpu_never_waits_for_it(archive: Path, fixed: bool, options: dict[str, Any]) -> None:
    loader = HelloLoader(HelloDataset(archive, **options), 5, shuffle=True, device="cuda")
    warm(loader)
    if fixed:
        loader.set_epoch(7)
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(loader)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("options", OPTIONS)
def test_batches_on_another_device_are_those_of_the_cpu(
    archive: Path, accelerator: str, options: dict[str, Any]
) -> None:
    there, here = (HelloDataset(archive, **options) for _ in range(2))
    for (image, label), (expected_image, expected_label) in zip(
        HelloLoader(there, 8, device=accelerator), HelloLoader(here, 8), strict=True
    ):
        assert image.device == label.device == torch.device(accelerator)
        assert torch.equal(image.cpu(), expected_image)
        assert torch.allclose(label.cpu(), expected_label, atol=1e-3)


def test_epochs_of_one_loader_are_not_undone_by_another_of_the_data_set(archive: Path) -> None:
    dataset = HelloDataset(archive, normalize=False)
    one, other = (HelloLoader(dataset, 5, shuffle=True) for _ in range(2))
    alone = HelloLoader(HelloDataset(archive, normalize=False), 5, shuffle=True)
    alone.set_epoch(3)
    one.set_epoch(3)
    other.set_epoch(0)
    for (seen, _), (expected, _) in zip(one, alone, strict=True):
        assert torch.equal(seen, expected)
        next(iter(other))


def test_epoch_may_be_a_number_of_numpy(archive: Path) -> None:
    ours, theirs = (HelloLoader(HelloDataset(archive), 4, shuffle=True) for _ in range(2))
    ours.set_epoch(np.int64(3))  # type: ignore[arg-type]
    theirs.set_epoch(3)
    assert targets(ours) == targets(theirs)
