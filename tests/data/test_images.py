import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hellods import Archive, FormatError, HelloDataset, HelloLoader
from hellods.data import images as module
from hellods.data.images import Images, room
from hellods.data.lazy import CPU

COUNT = 20  # images in the archive that conftest.py writes


@pytest.fixture
def images(archive: Path) -> Callable[[], Images]:
    with Archive.open(archive) as opened:
        header = opened.header
    return lambda: Images(header, lambda: Archive.open(archive))


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory has room for all images."""
    monkeypatch.setattr(module, "room", lambda device: 100)


def test_images_are_those_of_the_file(images: Callable[[], Images], pixels: Tensor) -> None:
    found = images()
    assert torch.equal(found.whole(CPU), pixels)
    assert torch.equal(found.some(torch.tensor([7, 2, 7]), CPU)(), pixels[[7, 2, 7]])


@pytest.mark.usefixtures("cramped")
def test_images_without_room_are_decoded_for_each_batch(images: Callable[[], Images], pixels: Tensor) -> None:
    found = images()
    assert found.whole(CPU) is None
    assert torch.equal(found.some(torch.tensor([7, 2, 7]), CPU)(), pixels[[7, 2, 7]])


@pytest.mark.usefixtures("cramped")
def test_lack_of_room_is_said_once(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = HelloLoader(HelloDataset(archive), 8)
    with caplog.at_level(logging.WARNING, "hellods"):
        _ = list(loader), list(loader)
    assert caplog.messages == ["15360 bytes of images are more than cpu has room for: they are decoded for each batch"]


@pytest.mark.parametrize("options", [{}, {"train": False}, {"view": None}, {"labels": "hard"}, {"mix": "mixup"}])
def test_samples_do_not_depend_on_room(options: dict[str, str], archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(HelloLoader(HelloDataset(archive, seed=5, **options), 8))
    with monkeypatch.context() as patch:
        patch.setattr(module, "room", lambda device: 100)
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


def test_room_is_a_share_of_the_machine() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert room(CPU) == memory // 4


@pytest.mark.gpu
def test_images_without_room_on_the_gpu_come_from_the_host(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(HelloLoader(HelloDataset(archive), 8))
    monkeypatch.setattr(module, "room", lambda device: 100 if device.type == "cuda" else 1 << 30)
    for (image, label), (expected_image, expected_label) in zip(
        HelloLoader(HelloDataset(archive), 8, device="cuda"), expected, strict=True
    ):
        assert torch.equal(image.cpu(), expected_image)
        assert torch.allclose(label.cpu(), expected_label, atol=1e-3)
