from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hellods import HelloDataset, HelloLoader

COUNT = 20  # images in the archive that conftest.py writes


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


def test_draws_count_for_the_data_set(archive: Path) -> None:
    dataset, other = HelloDataset(archive), HelloDataset(archive)
    list(HelloLoader(dataset, 8))
    other.set_epoch(1)
    assert torch.equal(dataset[5][0], other[5][0])


def test_shuffle_draws_every_index_once(archive: Path) -> None:
    torch.manual_seed(0)
    dataset = HelloDataset(archive, labels="hard")
    targets = torch.cat([labels for _, labels in HelloLoader(dataset, 6, shuffle=True)]).tolist()
    assert targets != dataset.targets
    assert sorted(targets) == sorted(dataset.targets)


def test_labels_carry_no_gradient(archive: Path) -> None:
    _, labels = next(iter(HelloLoader(HelloDataset(archive), 4)))
    assert (type(labels), labels.requires_grad) == (torch.Tensor, False)


def test_shuffle_and_sampler_exclude_each_other(archive: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        HelloLoader(HelloDataset(archive), 4, shuffle=True, sampler=[1, 2])


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_of_the_cpu(archive: Path) -> None:
    for (image, label), (expected_image, expected_label) in zip(
        HelloLoader(HelloDataset(archive), 8, device="cuda"), HelloLoader(HelloDataset(archive), 8), strict=True
    ):
        assert image.device.type == label.device.type == "cuda"
        assert torch.equal(image.cpu(), expected_image)
        assert torch.allclose(label.cpu(), expected_label, atol=1e-3)
