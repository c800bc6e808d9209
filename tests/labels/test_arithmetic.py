"""Labels are made in the arithmetic that the archive states, and the caller's own settings come back."""

from collections.abc import Iterator

import pytest
import torch
from torch.backends import cudnn

from hellods.labels.arithmetic import DTYPES, arithmetic
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
