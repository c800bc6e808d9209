"""Labels are made in the arithmetic that the archive states, and the caller's own settings come back."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.backends import cudnn

from hellods.labels.arithmetic import DTYPES, arithmetic, in_parts
from hellods.labels.config import Precision

CPU = torch.device("cpu")


def settings() -> tuple[object, ...]:
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.enabled, cudnn.benchmark, cudnn.deterministic


@pytest.fixture
def quick() -> Iterator[None]:
    """The settings of someone who trains fast; torch gives its own back after the test."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("quick")
def test_float32_is_computed_in_float32_and_settings_come_back() -> None:
    before = settings()
    assert before[:2] == ("medium", True)
    with arithmetic("fp32", CPU):
        assert settings() == ("highest", False, *before[2:])
    assert settings() == before


@pytest.mark.parametrize("precision", DTYPES)
def test_products_have_the_stated_precision_even_under_autocast(precision: Precision) -> None:
    with torch.autocast("cpu", torch.bfloat16), arithmetic(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == DTYPES[precision]


def test_network_answers_in_equal_parts_but_under_autocast_which_casts_its_weights_for_each() -> None:
    seen: list[int] = []

    def network(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.mean((1, 2, 3))

    images = torch.zeros(12, 3, 224, 224)
    with torch.no_grad():
        whole = in_parts(network, images)
        with arithmetic("bf16", torch.device("cpu")):
            in_parts(network, images)
    assert (len(whole), seen) == (12, [4, 4, 4, 12])
    in_parts(network, images)  # gradients are wanted
    assert seen[4:] == [12]
