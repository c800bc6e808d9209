import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hellods import Archive, FormatError, HelloDataset, HelloLoader
from hellods.data import images as module
from hellods.data import memory
from hellods.data.images import Images
from hellods.data.samples import CHECKED
from hellods.device import CPU

COUNT = 20  # images in the archive that conftest.py writes


@pytest.fixture
def images(archive: Path) -> Callable[[], Images]:
    with Archive.open(archive) as opened:
        header = opened.header
    return lambda: Images(header, lambda known: Archive.open(archive, known))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that this process decoded, as messages name them."""
    names: list[str] = []
    decode = module.decode

    def noted(stream: bytes, codec: str, height: int, width: int, where: str) -> Any:
        names.append(where)
        return decode(stream, codec, height, width, where)

    monkeypatch.setattr(module, "decode", noted)
    return names


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory has room for all images."""
    monkeypatch.setattr(memory, "room", lambda device: 100)


def test_images_are_those_of_the_file(images: Callable[[], Images], pixels: Tensor) -> None:
    found = images()
    assert torch.equal(found.some(torch.tensor([7, 2, 7]), CPU)(), pixels[[7, 2, 7]])
    holding = found.holding(torch.arange(COUNT), CPU)
    assert holding is not None
    assert torch.equal(holding(), pixels)


def test_an_image_is_decoded_once_when_it_is_needed(
    images: Callable[[], Images], pixels: Tensor, decoded: list[str]
) -> None:
    found = images()
    for rows in ([7, 2, 7], [2, 7, 3]):
        wanted = torch.tensor(rows)
        holding = found.holding(wanted, CPU)
        assert holding is not None
        assert torch.equal(holding()[wanted], pixels[wanted])
    assert sorted(name.rpartition(" ")[2] for name in decoded) == ["2", "3", "7"]


def test_images_are_complete_when_all_are_decoded(images: Callable[[], Images], pixels: Tensor) -> None:
    found = images()
    for part in torch.arange(COUNT).split(8):
        assert found.complete(CPU) is None
        holding = found.holding(part, CPU)
        assert holding is not None
        holding()
    complete = found.complete(CPU)
    assert complete is not None
    assert torch.equal(complete, pixels)


def test_images_are_complete_on_one_gpu_and_not_on_that_which_is_current_then(
    images: Callable[[], Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, found = torch.device("meta"), images()
    stores = [module.Store(torch.empty(COUNT, 3, 16, 16), torch.full((COUNT,), known)) for known in (True, False)]
    monkeypatch.setattr(found, "_store", lambda device: stores[0])
    assert found.complete(gpu) is stores[0].pixels
    stores[1] = stores[1]._replace(pixels=torch.empty(COUNT, 3, 16, 16, device="meta"))
    monkeypatch.setattr(found, "_store", lambda device: stores[1])
    assert found.complete(gpu) is None


def test_archive_is_read_once_however_many_batches_are_decoded(
    images: Callable[[], Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "room", lambda device: 100)
    found, read = images(), Archive.read
    sections: list[str] = []

    def noted(archive: Archive, section: str) -> bytes:
        sections.append(section)
        return read(archive, section)

    monkeypatch.setattr(Archive, "read", noted)
    for row in range(3):
        found.some(torch.tensor([row]), CPU)()
    assert sections == ["images.index"]


@pytest.mark.usefixtures("cramped")
def test_images_without_room_are_decoded_for_each_batch(images: Callable[[], Images], pixels: Tensor) -> None:
    found = images()
    assert found.complete(CPU) is None
    assert found.holding(torch.tensor([7]), CPU) is None
    assert torch.equal(found.some(torch.tensor([7, 2, 7]), CPU)(), pixels[[7, 2, 7]])


@pytest.mark.usefixtures("cramped")
def test_lack_of_room_is_said_once(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = HelloLoader(HelloDataset(archive), 8)
    with caplog.at_level(logging.WARNING, "hellods"):
        _ = list(loader), list(loader)
    (message,) = caplog.messages
    assert message == "15360 bytes of images are more than cpu has room for: they are decoded for each batch made there"


@pytest.mark.parametrize(
    ("host", "where"), [(1 << 30, "they stay in the host's memory"), (100, "they are decoded for each batch")]
)
def test_lack_of_room_on_a_device_says_where_images_come_from(
    host: int, where: str, archive: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "room", lambda device: host if device == CPU else 100)
    loader = HelloLoader(HelloDataset(archive, labels="hard"), 8, device="meta")
    with caplog.at_level(logging.WARNING, "hellods"):
        _ = list(loader), list(loader)
    messages = [message for message in caplog.messages if "cpu" not in message]
    assert messages == [f"15360 bytes of images are more than meta has room for: {where}"]


@pytest.mark.parametrize("options", [{}, {"train": False}, {"view": None}, {"labels": "hard"}, {"mix": "mixup"}])
def test_samples_do_not_depend_on_room(options: dict[str, str], archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(HelloLoader(HelloDataset(archive, seed=5, **options), 8))
    with monkeypatch.context() as patch:
        patch.setattr(memory, "room", lambda device: 100)
        found = list(HelloLoader(HelloDataset(archive, seed=5, **options), 8))
        one = HelloDataset(archive, seed=5, **options)[3]
    for (image, label), (expected_image, expected_label) in zip(found, expected, strict=True):
        assert torch.equal(image, expected_image)
        assert torch.allclose(label, expected_label, atol=1e-5)
    assert torch.equal(one[0], expected[0][0][3])


@pytest.mark.usefixtures("cramped")
def test_broken_image_is_named_where_it_is_decoded(make: Callable[..., Path], archive: Path, tmp_path: Path) -> None:
    with Archive.open(archive) as opened:
        facts = opened.header.images
    path = make(tmp_path / "x.hello")
    data = bytearray(path.read_bytes())
    with Archive.open(path) as opened:
        place = data.index(opened.image(3)) + 40
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"x\.hello: image 3"):
        list(HelloLoader(HelloDataset(path, labels="hard"), facts.count))


@pytest.mark.parametrize(
    ("groups", "limits", "limited"),
    [
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "4096\n"}, 4096),
        ("0::/known/outside\n", {"memory.max": "4096\n"}, 4096),
        ("0::/slurm/job\n", {"slurm/memory.max": "4096\n", "slurm/job/memory.max": "max\n"}, 4096),
        ("0::/slurm/job\n", {"slurm/memory.max": "8192\n", "slurm/job/memory.max": "4096\n"}, 4096),
        ("3:cpu:/\n2:hugetlb,memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "4096\n"}, 4096),
        (None, {"memory.max": "4096\n"}, None),
    ],
)
def test_room_is_a_share_of_the_machine_or_of_the_control_group(
    groups: str | None, limits: dict[str, str], limited: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if groups is not None:
        (tmp_path / "cgroup").write_text(groups)
    for name, limit in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(limit)
    monkeypatch.setattr(memory, "GROUPS", str(tmp_path / "cgroup"))
    monkeypatch.setattr(memory, "LIMITS", tmp_path)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.room(CPU) == (limited or whole) // 4


@pytest.mark.parametrize(("how", "workers"), [("fork", 2), ("spawn", 1)])
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory that all processes share")
def test_workers_decode_for_all_processes(how: str, workers: int, archive: Path, decoded: list[str]) -> None:
    dataset = HelloDataset(archive, labels="hard")
    for _ in DataLoader(dataset, 4, num_workers=workers, multiprocessing_context=how):
        pass
    assert dataset._resident(CPU)
    dataset.batch(range(COUNT))
    assert [name for name in decoded if str(archive) in name] == []


def test_copy_in_another_program_keeps_its_own_images(archive: Path, pixels: Tensor) -> None:
    dataset = HelloDataset(archive, labels="hard", view=None, normalize=False)
    data = pickle.dumps(dataset)
    dataset.batch(range(COUNT))
    del dataset
    copied = pickle.loads(data)
    assert not copied._resident(CPU)
    assert torch.equal(copied.batch(range(COUNT))[0], pixels)


def test_memory_that_cannot_be_passed_on_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    shared = memory.reserve(10)
    assert shared is not None
    monkeypatch.setattr(memory, "get_spawning_popen", lambda: object())
    assert pickle.loads(pickle.dumps(shared)) is None


def test_memory_is_there_where_descriptors_cannot_be_passed_on() -> None:
    code = """
import multiprocessing.reduction, os, pickle
del multiprocessing.reduction.DupFd  # as on Windows
vars(os).pop("memfd_create", None)
from hellods import HelloDataset
from hellods.data import memory
shared = memory.reserve(10)
memory.get_spawning_popen = object
assert len(shared.bytes) == 10
assert pickle.loads(pickle.dumps(shared)) is None
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_processes_of_torchrun_share_what_a_machine_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = memory.room(CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.room(CPU) == alone // 4


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_data_sets_of_one_file_keep_its_images_once_on_each_device(archive: Path, device: str) -> None:
    first, second = HelloDataset(archive), HelloDataset(archive, seed=1, train=False)
    stores = [dataset._samples.images._store(torch.device(device)) for dataset in (first, second)]
    assert stores[0] is stores[1] is not None


def test_data_sets_of_one_file_have_one_label_maker_and_one_check(archive: Path) -> None:
    first, second = HelloDataset(archive), HelloDataset(archive, seed=1, mix="none", temperature=2.0)
    first.batch([0])
    assert second._samples.projector(CPU) is first._samples.projector(CPU)
    assert second._samples.projector(CPU) in CHECKED


def test_memory_that_the_system_refuses_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "room", lambda device: 1 << 62)
    assert memory.reserve(1 << 60) is None


def test_memory_of_a_batch_is_used_again_when_nothing_shows_it_any_more() -> None:
    batches = memory.Batches()
    first = batches.empty((4, 3), torch.float32)
    row, place = first[2], first.data_ptr()
    del first
    assert batches.empty((4, 3), torch.float32).data_ptr() != place
    del row
    smaller = batches.empty((2, 3), torch.float32)
    assert smaller.data_ptr() == place
    assert smaller.shape == (2, 3)
    larger = batches.empty((8, 3), torch.float32)
    assert larger.numel() == 24


def test_memory_outlives_who_lent_it() -> None:
    batch = memory.Batches().empty((2, 3), torch.float32).fill_(7)
    assert bool((batch == 7).all())


def test_images_without_room_on_the_device_come_from_the_host(
    archive: Path, accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(HelloLoader(HelloDataset(archive), 8))
    monkeypatch.setattr(memory, "room", lambda device: 1 << 30 if device == CPU else 100)
    for (image, label), (expected_image, expected_label) in zip(
        HelloLoader(HelloDataset(archive), 8, device=accelerator), expected, strict=True
    ):
        assert torch.equal(image.cpu(), expected_image)
        assert torch.allclose(label.cpu(), expected_label, atol=1e-3)


def test_each_device_has_a_label_maker_of_its_own(archive: Path) -> None:
    samples = HelloDataset(archive)._samples
    there = samples.projector(torch.device("meta"))
    assert (samples.projector(CPU).gain.device, there.gain.device.type) == (CPU, "meta")
    assert samples.projector(torch.device("meta")) is there
