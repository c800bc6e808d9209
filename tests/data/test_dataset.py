import copy
import gc
import pickle
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint
from torch.utils.data import ConcatDataset, DataLoader, Subset, default_collate

from hellods import DigestError, FormatError, HelloDataset, HelloError, HelloLoader, LabelError, OptionError
from hellods.data import images as images_module
from hellods.data import samples as samples_module
from hellods.data.epochs import Epochs
from hellods.data.lazy_label import LazyLabel
from hellods.data.samples import CHECKED
from hellods.device import CPU, compute_device
from hellods.format.archive import Archive
from hellods.format.codecs import encode
from hellods.format.streams import image_sections
from hellods.labels import precision
from hellods.labels.projector import Projector
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

# Of the archive that conftest.py writes.
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNT, SIDE = 20, 16
VIEWS = Views(size=12, mix="cutmix")


@pytest.fixture
def view(pixels: Tensor) -> Callable[..., Tensor]:
    """Return the views that samples must show, uint8 (B, 3, S, S)."""

    def view(epoch: int, indices: Any = range(COUNT), seed: int = 0) -> Tensor:
        return render(pixels, draw(VIEWS, (SIDE, SIDE), COUNT, seed, epoch, torch.tensor(list(indices))))

    return view


def normalized(views: Tensor, mean: tuple[float, ...] = (0.3, 0.3, 0.4), std: Any = (0.2, 0.25, 0.2)) -> Tensor:
    scale = torch.tensor([1 / (255 * unit) for unit in std], dtype=torch.float32).view(3, 1, 1)
    shift = torch.tensor([-middle / unit for middle, unit in zip(mean, std, strict=True)], dtype=torch.float32)
    return views.float() * scale + shift.view(3, 1, 1)


def soft(projector: Projector, views: Tensor) -> Tensor:
    with torch.no_grad():
        return projector(views).softmax(1)


LOADERS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "fork": {"num_workers": 2, "multiprocessing_context": "fork"},
    "fork, persistent": {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True},
    "spawn, persistent": {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True},
}


@pytest.mark.parametrize("how", LOADERS)
def test_labels_are_those_of_the_views_seen_in_every_epoch(
    how: str, archive: Path, view: Callable[..., Tensor], projector: Projector
) -> None:
    loader = DataLoader(HelloDataset(archive), batch_size=8, **LOADERS[how])
    for epoch in range(2):
        batches = [(images, labels.to("cpu")) for images, labels in loader]
        images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
        assert torch.equal(images, normalized(view(epoch)))
        assert (labels - soft(projector, view(epoch))).abs().max() < 1e-5


def test_set_epoch_reaches_workers_that_live_on(archive: Path, view: Callable[..., Tensor]) -> None:
    dataset = HelloDataset(archive, normalize=False)
    loader = DataLoader(dataset, batch_size=COUNT, num_workers=1, persistent_workers=True)
    for epoch in (0, 7, 7):
        if epoch:
            dataset.set_epoch(epoch)
        ((images, _),) = loader
        assert torch.equal(images, view(epoch))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_set_epoch_reaches_the_workers_of_a_process_that_was_started_with_the_data_set(
    method: str, archive: Path, view: Callable[..., Tensor]
) -> None:
    dataset = HelloDataset(archive, normalize=False)

    def train() -> None:  # as a rank does whose framework starts workers before it tells of an epoch
        loader = DataLoader(
            dataset, COUNT, num_workers=1, persistent_workers=True, multiprocessing_context=method, prefetch_factor=1
        )
        iter(loader)
        for epoch in (7, 8):
            dataset.set_epoch(epoch)
            ((images, _),) = loader
            assert torch.equal(images, view(epoch))

    rank = get_context("fork").Process(target=train)
    rank.start()
    rank.join()
    assert rank.exitcode == 0
    assert dataset._epochs.take([0]).tolist() == [0]


def test_views_and_labels_differ_from_epoch_to_epoch(archive: Path) -> None:
    dataset = HelloDataset(archive)
    first, second = (dataset.batch(range(COUNT)) for _ in range(2))
    assert not any(torch.equal(one, other) for one, other in zip(first[0], second[0], strict=True))
    assert (first[1] - second[1]).abs().max() > 1e-3


def test_seed_gives_other_views_of_the_same_images(archive: Path, view: Callable[..., Tensor]) -> None:
    images, _ = HelloDataset(archive, seed=3, normalize=False).batch(range(COUNT))
    assert torch.equal(images, view(0, seed=3))
    assert not torch.equal(images, view(0))


def test_subset_draws_the_samples_of_the_whole(
    archive: Path, view: Callable[..., Tensor], projector: Projector
) -> None:
    chosen = [7, 3, 11]
    ((_, labels),) = DataLoader(Subset(HelloDataset(archive), chosen), batch_size=3)
    assert torch.allclose(labels.to("cpu"), soft(projector, view(0, chosen)), atol=1e-5)


def test_two_seeds_of_one_file_mix_in_one_batch(
    archive: Path, view: Callable[..., Tensor], projector: Projector
) -> None:
    both = ConcatDataset([HelloDataset(archive), HelloDataset(archive, seed=3)])
    ((images, labels),) = DataLoader(both, batch_size=4, sampler=[1, COUNT + 1, 2, COUNT])
    expected = torch.cat([view(0, [1]), view(0, [1], seed=3), view(0, [2]), view(0, [0], seed=3)])
    assert torch.equal(images, normalized(expected))
    assert torch.allclose(labels.to("cpu"), soft(projector, expected), atol=1e-5)


def test_one_sample_at_a_time_is_the_same_as_a_batch(archive: Path) -> None:
    one, other = HelloDataset(archive), HelloDataset(archive)
    images, labels = default_collate([one[index] for index in (2, 5)])
    expected = other.batch([2, 5])
    assert torch.equal(images, expected[0])
    assert torch.allclose(labels.to("cpu"), expected[1], atol=1e-6)


def test_sample_is_a_normalized_image_and_a_lazy_label(archive: Path) -> None:
    image, label = HelloDataset(archive)[0]
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (3, 12, 12))
    assert (type(label), tuple(label.shape)) == (LazyLabel, (10,))


def test_images_are_uint8_when_not_normalized(archive: Path, view: Callable[..., Tensor]) -> None:
    image, _ = HelloDataset(archive, normalize=False)[4]
    assert torch.equal(image, view(0, [4])[0])


@pytest.mark.parametrize("options", [{}, {"views": 2}, {"view": None}, {"labels": "hard"}])
@pytest.mark.parametrize("default", ["device", "dtype"])
def test_samples_do_not_depend_on_torchs_defaults(default: str, options: dict[str, Any], archive: Path) -> None:
    def samples() -> list[Tensor]:
        dataset = HelloDataset(archive, seed=13, **options)
        batches = [dataset.batch(range(COUNT)), *HelloLoader(dataset, 8, shuffle=True)]
        return [dataset[3][0], *(part for batch in batches for part in batch)]

    expected = samples()
    if default == "device":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(torch.float64)
    try:
        found = samples()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_data_sets_of_one_file_decode_its_images_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda *told: decoded.append(told) or decode(*told))
    first, second = HelloDataset(archive, seed=17), HelloDataset(archive, seed=18, train=False)
    shown = first.batch(range(COUNT))[0], second.batch(range(COUNT))[0]
    assert len(decoded) == COUNT
    del first, second, shown
    gc.collect()
    HelloDataset(archive, seed=19).batch(range(COUNT))
    assert len(decoded) == 2 * COUNT  # nothing was kept for nobody


def test_transform_comes_last_and_leaves_the_label(
    archive: Path, view: Callable[..., Tensor], projector: Projector
) -> None:
    image, label = HelloDataset(archive, transform=torch.neg)[4]
    assert torch.equal(image, -normalized(view(0, [4]))[0])
    assert torch.allclose(label.to("cpu"), soft(projector, view(0, [4]))[0], atol=1e-5)


def test_transform_of_no_image_is_none(archive: Path) -> None:
    images, labels = HelloDataset(archive, transform=lambda image: image).batch([])
    assert (images.shape, labels.shape) == ((0, 3, 12, 12), (0, 10))


def test_indices_behave_as_those_of_a_list(archive: Path) -> None:
    dataset = HelloDataset(archive, labels="hard")
    assert [label for _, label in dataset] == dataset.targets
    assert torch.equal(HelloDataset(archive)[-1][0], HelloDataset(archive)[COUNT - 1][0])
    with pytest.raises(IndexError, match=f"image {COUNT} of the {COUNT}"):
        dataset[COUNT]


@pytest.mark.parametrize("index", [slice(3), torch.arange(COUNT) < 3, [0, 1], 1.5])
def test_index_that_is_not_one_int_is_refused_with_a_remedy(index: Any, archive: Path) -> None:
    with pytest.raises(TypeError, match=r"one int, not .*torch\.utils\.data\.Subset.*dataset\.batch\("):
        HelloDataset(archive)[index]


def test_repr_says_what_is_drawn(archive: Path) -> None:
    assert repr(HelloDataset(archive, train=False, labels="logits")) == (
        f"HelloDataset 'digits': 20 images of 10 classes\n    view={VIEWS}, train=False, labels='logits'"
    )


def test_attributes_are_those_that_torchvision_has(archive: Path) -> None:
    dataset = HelloDataset(archive)
    assert (len(dataset), dataset.view, dataset.seed) == (COUNT, VIEWS, 0)
    assert dataset.classes == list(CLASSES)
    assert dataset.class_to_idx == {name: index for index, name in enumerate(CLASSES)}
    assert dataset.targets == [*range(10), *range(10)]
    assert dataset.targets is dataset.targets  # asked for one at a time in loops


@pytest.mark.parametrize("name", ["seed", "view", "train", "mix", "views", "labels", "temperature", "base", "compile"])
def test_what_samples_follow_from_is_not_changed_later(name: str, archive: Path) -> None:
    dataset = HelloDataset(archive)
    with pytest.raises(AttributeError, match=f"{name} is chosen .*: make another HelloDataset with {name}="):
        setattr(dataset, name, None)
    dataset.transform = torch.Tensor.double  # which is called last
    assert dataset[0][0].dtype == torch.float64


def test_whole_numbers_may_be_of_numpy(archive: Path, view: Callable[..., Tensor]) -> None:
    dataset = HelloDataset(archive, seed=np.int64(5), views=np.int32(3), temperature=np.float32(4), normalize=False)  # type: ignore[arg-type]
    assert torch.equal(dataset.batch(np.arange(COUNT))[0], view(0, seed=5))  # type: ignore[arg-type]
    for indices in ([[1, 2], [3]], np.zeros((2, 2), int), torch.zeros(2, 2, dtype=torch.int64), ["a"]):
        with pytest.raises(TypeError, match="by a list of whole numbers: "):
            dataset.batch(indices)  # type: ignore[arg-type]


def test_images_as_they_are_stored_are_contiguous(archive: Path) -> None:
    dataset = HelloDataset(archive, view=None, normalize=False)
    assert dataset[0][0].is_contiguous()
    assert dataset.batch([0, 1])[0].is_contiguous()


@pytest.mark.parametrize("options", [{"views": 2}, {"train": False}, {"view": None}])
def test_soft_labels_that_are_kept_are_probabilities(options: dict[str, Any], archive: Path) -> None:
    for temperature in (0.05, 1.0):
        kept = HelloDataset(archive, temperature=temperature, **options)
        first, again = kept.batch(range(COUNT))[1], kept.batch(range(COUNT))[1]
        assert (first > 0).all()
        assert torch.allclose(first.sum(1), torch.ones(COUNT), atol=1e-6)
        assert again.shape == first.shape


def test_logits_and_temperature(archive: Path, view: Callable[..., Tensor], projector: Projector) -> None:
    with torch.no_grad():
        expected = projector(view(0))
    _, logits = HelloDataset(archive, labels="logits").batch(range(COUNT))
    _, warm = HelloDataset(archive, temperature=4).batch(range(COUNT))
    assert torch.allclose(logits, expected, rtol=1e-4)
    assert torch.allclose(warm, (expected / 4).softmax(1), atol=1e-5)


def test_label_maker_that_is_on_a_device_is_not_moved_there_again(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = HelloDataset(archive)
    dataset.batch([0])
    monkeypatch.setattr(Projector, "to", None)
    assert dataset.batch([1])[1].shape == (1, 10)


def test_label_maker_answers_for_images_of_the_user(archive: Path, projector: Projector) -> None:
    images = torch.randint(0, 256, (5, 3, 12, 12), dtype=torch.uint8)
    labels = HelloDataset(archive).label_maker(images)
    assert torch.allclose(labels, soft(projector, images), atol=1e-5)
    assert not labels.requires_grad


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 12, 12),  # what a loader yields
        torch.zeros(2, 1, 12, 12, dtype=torch.uint8),
        torch.zeros(3, 12, 12, dtype=torch.uint8),
        torch.zeros(2, 3, 12, 12, dtype=torch.int64),
    ],
)
def test_label_maker_refuses_what_it_would_misread(images: Tensor, archive: Path) -> None:
    with pytest.raises(LabelError, match=r"takes uint8 images \(B, 3, H, W\), not normalized; got torch\."):
        HelloDataset(archive).label_maker(images)


def test_label_maker_sees_few_images_at_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (300, 3, 4, 4), dtype=torch.uint8)
    seen: list[int] = []
    label = Projector.label
    monkeypatch.setattr(Projector, "label", lambda self, part: seen.append(len(part)) or label(self, part))
    labels = HelloDataset(archive).label_maker(images)
    assert (len(labels), seen[-2:]) == (300, [256, 44])


@pytest.mark.parametrize("options", [{}, {"views": 1}])
def test_labels_of_more_images_than_are_seen_at_once_are_those_of_each(
    options: dict[str, Any], archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = HelloDataset(archive).batch(range(COUNT))[1]
    monkeypatch.setattr(samples_module, "LABEL_BATCH", 3)
    lazy = default_collate([label for _, label in HelloDataset(archive, **options)])
    values = HelloDataset(archive, **options).batch(range(COUNT))[1]
    for labels in (lazy.to("cpu"), values):
        assert torch.allclose(labels, whole, atol=1e-3)


def test_hard_labels_are_classes_and_need_no_base_model(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Projector, "restore", None)
    ((_, labels),) = DataLoader(HelloDataset(archive, labels="hard"), batch_size=3, sampler=[4, 12, 0])
    assert (labels.tolist(), labels.dtype) == ([4, 2, 0], torch.int64)


def test_views_with_hard_labels_are_not_mixed(archive: Path, pixels: Tensor) -> None:
    drawn = draw(replace(VIEWS, mix="none"), (SIDE, SIDE), COUNT, 0, 0, torch.arange(COUNT))
    images, _ = HelloDataset(archive, labels="hard", normalize=False).batch(range(COUNT))
    assert torch.equal(images, render(pixels, drawn))


def test_labels_outlive_their_data_set(archive: Path) -> None:
    dataset = HelloDataset(archive)
    ((_, labels),) = DataLoader(dataset, batch_size=COUNT)
    del dataset
    assert labels.to("cpu").shape == (COUNT, 10)


def test_data_set_that_is_gone_leaves_nothing_behind(archive: Path) -> None:
    dataset = HelloDataset(archive, seed=11)
    dataset.batch([0, 1])
    samples = weakref.ref(dataset._samples)
    del dataset
    assert samples() is None


def test_values_survive_a_file_that_goes_away(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make(tmp_path / "x.hello")
    dataset = HelloDataset(path)
    expected = dataset.batch([0, 1])
    path.unlink()
    dataset.set_epoch(0)
    assert torch.equal(dataset.batch([0, 1])[1], expected[1])


def test_pickle_is_small_and_goes_on_counting(archive: Path) -> None:
    dataset = HelloDataset(archive)
    dataset.batch(range(COUNT))  # decoded images and the label maker stay behind
    data = pickle.dumps(dataset)
    copied = pickle.loads(data)
    assert len(data) < 2000 + 4 * COUNT
    assert torch.equal(copied[3][0], dataset[3][0])


def test_pickle_for_a_worker_is_small_whatever_the_images(archive: Path) -> None:
    dataset = HelloDataset(archive)
    dataset.batch(range(COUNT))
    dataset._epochs = Epochs(1_000_000)
    assert len(ForkingPickler.dumps(dataset)) < 2000


def test_copy_of_a_data_set_shares_its_images(archive: Path) -> None:
    dataset = HelloDataset(archive)
    copied = copy.deepcopy(dataset)
    assert copied._samples.images is dataset._samples.images


def test_relative_path_holds_in_another_folder(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.parent)
    dataset = HelloDataset(archive.name)
    monkeypatch.chdir(tmp_path)
    assert dataset[0][0].shape == (3, 12, 12)


def mixes(samples: list[Any]) -> tuple[Tensor, Tensor]:
    images, labels = default_collate(samples)
    return images, labels * 0.5 + labels.flip(0) * 0.5


def test_values_in_a_worker_are_refused_with_a_remedy(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = HelloDataset(archive).__getitems__([0, 1])
    monkeypatch.setattr("hellods.data.lazy_label.get_worker_info", object)
    with pytest.raises(LabelError, match=r"^torch\.Tensor\.mul needs label values.*num_workers=0"):
        mixes(samples)


def test_values_in_a_real_worker_are_refused_in_the_training_loop(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # seconds to wait for one that failed
    loader = DataLoader(HelloDataset(archive), 2, num_workers=1, multiprocessing_context="fork", collate_fn=mixes)
    with pytest.raises(LabelError, match=r"torch\.Tensor\.mul needs label values.*num_workers=0"):
        next(iter(loader))


def test_label_maker_in_a_worker_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = HelloDataset(archive)
    monkeypatch.setattr("hellods.data.lazy_label.get_worker_info", object)
    with pytest.raises(LabelError, match=r"^the label maker needs label values.*DataLoader worker"):
        dataset.label_maker(torch.zeros(1, 3, 12, 12, dtype=torch.uint8))


def test_gpu_in_a_process_forked_from_one_that_uses_it_is_refused(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = HelloDataset(archive)
    label = dataset[0][1]
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    uses = (
        lambda: label.to("cuda:0"),
        label.cuda,
        lambda: label.cuda("cuda:0", True),
        lambda: label.cuda(device="cuda:0", non_blocking=True),
        lambda: dataset.batch([0], "cuda"),
    )
    for use in uses:
        with pytest.raises(LabelError, match=r"^cuda.* cannot be used in a process that was forked"):
            use()


def test_mixing_without_workers_mixes_the_values(archive: Path) -> None:
    loader = DataLoader(HelloDataset(archive), batch_size=4, collate_fn=mixes)
    ((_, labels),) = list(loader)[:1]
    assert torch.allclose(labels, labels.flip(0))


def test_replaced_file_is_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make(tmp_path / "x.hello")
    data = pickle.dumps(HelloDataset(path))  # as a spawned worker gets it
    make(path, name="another")
    with pytest.raises(DigestError, match="replaced after it was opened"):
        pickle.loads(data)[0]


def test_base_model_that_is_missing_is_named(make: Callable[..., Path], tmp_path: Path, archive: Path) -> None:
    config = HelloDataset(archive).header.projector
    path = make(tmp_path / "x.hello", projector={**config, "base": "given:ours"})
    with pytest.raises(LabelError, match="need the base model 'ours'"):
        HelloDataset(path)[0][1].to("cpu")


def test_hard_labels_need_no_base_model_that_is_missing(
    make: Callable[..., Path], tmp_path: Path, archive: Path
) -> None:
    config = HelloDataset(archive).header.projector
    path = make(tmp_path / "x.hello", projector={**config, "base": "given:ours"})
    assert HelloDataset(path, labels="hard")[3][1] == 3


def test_base_of_the_user_is_taken(make: Callable[..., Path], tmp_path: Path, archive: Path) -> None:
    config = HelloDataset(archive).header.projector
    path = make(tmp_path / "x.hello", projector={**config, "base": "given:ours"})
    dataset = HelloDataset(path, base="local-dir:ours")
    assert torch.allclose(dataset[0][1].to("cpu"), HelloDataset(archive)[0][1].to("cpu"), atol=1e-5)
    assert dataset._samples.options.base == f"local-dir:{Path('ours').absolute()}"  # wherever the process goes


def test_probe_that_disagrees_is_refused(make: Callable[..., Path], tmp_path: Path, archive: Path) -> None:
    config = HelloDataset(archive).header.projector
    path = make(tmp_path / "x.hello", projector={**config, "template": "a sketch of {}"})
    with pytest.raises(LabelError, match=r"x\.hello: labels differ from the archive's probe"):
        HelloDataset(path)[0][1].to("cpu")


def test_images_that_decode_otherwise_are_told_from_labels_that_differ(
    make: Callable[..., Path], tmp_path: Path, pixels: Tensor
) -> None:
    streams = [encode((image ^ 1).permute(1, 2, 0).numpy(), "png", None) for image in pixels]  # as another decoder
    path = make(tmp_path / "x.hello", sections=image_sections(streams))
    with pytest.raises(LabelError, match=r"x\.hello: the images decode to other pixels here .*release of Pillow"):
        HelloDataset(path).batch([0])
    assert len(HelloDataset(path, labels="hard").batch([0])[1]) == 1


@pytest.mark.parametrize(
    "options", [{"view": None}, {"train": False}, {"view": Views(size=9)}, {"seed": 5, "views": 1}]
)
def test_probe_is_of_the_archives_own_views_whatever_a_reader_asks_for(
    options: dict[str, Any], make: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = HelloDataset(make(tmp_path / "x.hello"), **options)
    dataset.batch([0])
    assert dataset._samples.projector(CPU) in CHECKED


def test_archive_without_probe_gives_labels(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make(tmp_path / "x.hello", sections={"probe": b""})
    assert HelloDataset(path)[0][1].to("cpu").shape == (10,)


def test_archive_without_projector_has_hard_labels_only(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make(tmp_path / "x.hello", sections={"probe": b"", "projector": b""}, projector=None)
    assert HelloDataset(path, labels="hard")[3][1] == 3
    with pytest.raises(OptionError, match="no projector: take labels='hard'"):
        HelloDataset(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "softest"}, "labels is 'softest', expected"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"labels": "logits", "temperature": 2.0}, "belongs to labels='soft'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2.5}, "seed is 2.5, expected 0 to 9223372036854775807 as an int"),
        ({"seed": "0"}, "seed is '0', expected 0 to 9223372036854775807 as an int"),
        ({"views": "10"}, "views is '10', expected"),
        ({"temperature": "2"}, "temperature is '2'"),
        ({"temperature": None}, "temperature is None"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"base": 5}, "base is 5, expected a text"),
        ({"train": "no"}, "train is 'no', expected True or False"),
        ({"compile": "yes"}, "compile is 'yes', expected True or False"),
        ({"normalize": "no"}, "normalize is 'no', expected True or False"),
        ({"transform": 3}, "transform is 3, expected a function"),
        ({"seed": True}, "seed is True, expected 0 to 9223372036854775807 as an int"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": "4"}, "temperature is '4'"),
    ],
)
def test_option_that_cannot_be_used_is_refused(options: dict[str, Any], message: str, archive: Path) -> None:
    with pytest.raises(OptionError, match=message):
        HelloDataset(archive, **options)


@pytest.mark.parametrize(
    "views",
    [{"size": 12, "turn": True}, {"size": "big"}, {"size": 0}, {"size": 12, "shuffle": 5}],
    ids=["unknown key", "type", "range", "side not divisible"],
)
def test_rule_that_cannot_be_drawn_is_refused_at_once(
    views: dict[str, Any], make: Callable[..., Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "x.hello", views=views)
    with pytest.raises(FormatError, match=r"x\.hello: header\.views.* \[H23\]$"):
        HelloDataset(path)


def test_hard_labels_make_no_soft_ones(archive: Path) -> None:
    with pytest.raises(OptionError, match="labels='hard'"):
        HelloDataset(archive, labels="hard").label_maker(torch.zeros(1, 3, 12, 12, dtype=torch.uint8))


def test_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(HelloError, match=r"none\.hello: no such file"):
        HelloDataset(tmp_path / "none.hello")


@pytest.mark.parametrize("open_at", [HelloDataset, Archive.open])
def test_address_is_not_taken_for_a_path(open_at: Callable[[str], object]) -> None:
    with pytest.raises(HelloError, match=r"^https://example\.com/x\.hello: is an address: download it"):
        open_at("https://example.com/x.hello")


def test_temperature_of_the_labels_can_be_asked_for(archive: Path) -> None:
    assert (HelloDataset(archive).temperature, HelloDataset(archive, temperature=4).temperature) == (1.0, 4.0)


def test_no_images_have_no_labels(archive: Path) -> None:
    dataset = HelloDataset(archive)
    labels = dataset.label_maker(torch.zeros(0, 3, 12, 12, dtype=torch.uint8))
    assert (labels.shape, labels.dtype) == ((0, len(dataset.classes)), torch.float32)


def test_views_and_labels_for_a_device_that_cannot_make_them_are_made_on_the_cpu(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.device] = []

    def logits(images: Tensor) -> Tensor:
        made.append(images.device)
        return torch.zeros(len(images), len(CLASSES))

    monkeypatch.setattr("hellods.data.samples.compute_device", lambda device: CPU if device.type == "meta" else device)
    dataset = HelloDataset(archive)
    monkeypatch.setattr(dataset._samples, "_logits", logits)
    CHECKED.add(dataset._samples.projector(CPU))
    _, labels = default_collate([dataset[0], dataset[1]])
    assert (labels.to("meta").device.type, made) == ("meta", [CPU])
    assert dataset._samples.view(torch.zeros(1).long(), torch.zeros(1).long(), torch.device("meta")).is_meta
    assert compute_device(torch.device("mps")) == CPU


# What a caller does around the first label, which makes the label maker.


def fresh(archive: Path, folder: Path) -> HelloDataset:
    """Return a data set of a file that nothing was made of so far."""
    return HelloDataset(shutil.copy(archive, folder / f"{next(NUMBERS)}.hello"))


NUMBERS = count()


def test_label_maker_that_is_made_under_autocast_is_the_same(archive: Path, tmp_path: Path) -> None:
    _, expected = fresh(archive, tmp_path).batch(range(COUNT))
    with torch.autocast("cpu", torch.bfloat16):
        _, found = fresh(archive, tmp_path).batch(range(COUNT))
    assert torch.equal(found, expected)


def test_first_label_draws_nothing_from_the_callers_random_numbers(archive: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    fresh(archive, tmp_path).batch([0])
    assert torch.equal(torch.get_rng_state(), before)


def test_label_maker_is_made_while_no_other_thread_makes_labels(archive: Path, tmp_path: Path) -> None:
    dataset = fresh(archive, tmp_path)
    thread = Thread(target=lambda: dataset.batch([0]))
    with precision.LOCK:  # as in a thread that labels
        thread.start()
        thread.join(0.5)
        assert dataset._samples._projectors == {}
    thread.join()
    assert [*dataset._samples._projectors] == [CPU]


def gradient(target: Tensor) -> Tensor:
    found: Tensor = torch.func.grad(lambda logits: cross_entropy(logits, target))(torch.zeros(2, len(CLASSES)))
    return found


def mapped(target: Tensor) -> Tensor:
    found: Tensor = torch.func.vmap(lambda logits: cross_entropy(logits, target))(torch.zeros(3, 2, len(CLASSES)))
    return found


def checkpointed(target: Tensor) -> Tensor:
    logits = torch.zeros(2, len(CLASSES), requires_grad=True)
    checkpoint(lambda logits: cross_entropy(2 * logits, target), logits, use_reentrant=False).backward()
    assert logits.grad is not None
    return logits.grad


def cached(target: Tensor) -> Tensor:
    with parametrize.cached():
        return target + 0


@pytest.mark.parametrize("use", [gradient, mapped, checkpointed, cached])
def test_first_label_may_be_asked_for_within_anything(
    use: Callable[[Tensor], Tensor], archive: Path, tmp_path: Path
) -> None:
    dataset = fresh(archive, tmp_path)
    target = torch.stack([dataset[0][1], dataset[1][1]])
    found = use(target)
    assert torch.equal(found, use(target.to("cpu")))


def test_process_that_is_forked_while_a_thread_labels_can_label(archive: Path) -> None:
    dataset = HelloDataset(archive)
    dataset.batch([0])
    begun = Event()

    def labels_are_being_made() -> None:
        with precision.LOCK:
            begun.set()
            sleep(0.5)

    thread = Thread(target=labels_are_being_made)
    thread.start()
    begun.wait()
    process = get_context("fork").Process(target=dataset.batch, args=([0],))
    process.start()
    process.join(30)
    thread.join()
    assert process.exitcode == 0


def test_fork_waits_for_no_label_maker(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, forked = Event(), Event()
    restore = Projector.restore

    def slowly(*args: Any, **kwargs: Any) -> Projector:  # as one that downloads, or waits for a lock of another library
        begun.set()
        assert forked.wait(30)
        return restore(*args, **kwargs)

    monkeypatch.setattr(Projector, "restore", slowly)
    dataset = fresh(archive, tmp_path)
    thread = Thread(target=lambda: dataset.batch([0]))
    thread.start()
    begun.wait()
    process = get_context("fork").Process(target=int)
    process.start()
    forked.set()
    process.join()
    thread.join()
    assert process.exitcode == 0
    assert len(dataset.batch([0])[1]) == 1


def test_first_label_can_be_interrupted(archive: Path) -> None:
    code = f"""
import os, signal, threading, time
from hellods import HelloDataset
from hellods.labels.projector import Projector
Projector.restore = lambda *args, **kwargs: time.sleep(60)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this process was started with
threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    HelloDataset({str(archive)!r}).batch([0])
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout == "interrupted\n", ended.stderr


def test_label_of_inference_mode_is_saved_for_gradients(archive: Path) -> None:
    dataset = HelloDataset(archive)
    with torch.inference_mode():
        label = dataset[0][1]
    weight = torch.ones(len(CLASSES), requires_grad=True)
    checkpoint(lambda weight, label: weight * label, weight, label, use_reentrant=True).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, label.to("cpu"))


def test_label_maker_that_answers_wrongly_is_not_kept(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = fresh(archive, tmp_path)
    dataset.set_epoch(0)
    with monkeypatch.context() as patch:
        patch.setattr(Projector, "merge", lambda projector: projector.bias.data.add_(torch.arange(10.0)))
        with pytest.raises(LabelError, match="labels differ from the archive's probe"):
            dataset.batch([0])
    assert torch.equal(dataset.batch([0])[1], fresh(archive, tmp_path).batch([0])[1])


# Subclasses, and indices of other kinds.


class Numbered(HelloDataset):
    """Images with their index, and an attribute of its own."""

    def __init__(self, path: Path, more: int) -> None:
        super().__init__(path)
        self.more = more

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = super().__getitem__(index)
        return image, (label, index + self.more)


@pytest.mark.parametrize("workers", [0, 1])
def test_subclass_is_asked_for_its_samples_and_keeps_what_it_adds(archive: Path, workers: int) -> None:
    dataset = Numbered(archive, 100)
    context = "fork" if workers else None  # whose workers know this class
    batches = DataLoader(dataset, 4, num_workers=workers, multiprocessing_context=context)
    assert [numbers.tolist() for _, (_, numbers) in batches] == torch.arange(100, 100 + COUNT).view(-1, 4).tolist()
    assert copy.copy(dataset).more == pickle.loads(pickle.dumps(dataset)).more == 100


def test_subclass_with_samples_of_its_own_is_refused_by_a_hello_loader(archive: Path) -> None:
    with pytest.raises(TypeError, match=r"without Numbered\.__getitem__: take transform=, or a DataLoader"):
        HelloLoader(Numbered(archive, 1), 4)


def test_batch_of_what_can_be_read_once(archive: Path) -> None:
    images, labels = HelloDataset(archive).batch(iter([1, 2, 3]))
    expected = HelloDataset(archive).batch([1, 2, 3])
    assert torch.equal(images, expected[0])
    assert torch.equal(labels, expected[1])


@pytest.mark.parametrize("mask", [[True, False], torch.arange(COUNT) > 10, np.arange(COUNT) > 10])
def test_mask_is_no_list_of_indices(mask: Any, archive: Path) -> None:
    with pytest.raises(TypeError, match=r"not by a mask: take mask\.nonzero"):
        HelloDataset(archive).batch(mask)
