"""Labels are made in the arithmetic that the archive states, and the caller's own settings come back."""

from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from hellods.labels.precision import exact

CPU = torch.device("cpu")
MKLDNN = (mkldnn.matmul, mkldnn.conv)


def settings() -> list[str]:
    """Return how float32 is multiplied by each library in each operation."""
    return [setting.fp32_precision for setting in (cuda.matmul, cudnn.conv, *MKLDNN)]


def legacy() -> None:
    torch.set_float32_matmul_precision("medium")


def everywhere() -> None:
    torch.backends.fp32_precision = "tf32"  # type: ignore[attr-defined]


def one_operation() -> None:
    cuda.matmul.fp32_precision = "tf32"


def no_longer_alike() -> None:
    cudnn.conv.fp32_precision = "ieee"


def exactly() -> None:
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]


def exactly_on_a_gpu() -> None:
    cudnn.fp32_precision = "ieee"  # type: ignore[attr-defined]


def in_bfloat16() -> None:
    mkldnn.fp32_precision = "bf16"  # type: ignore[attr-defined]


CHOICES = [legacy, everywhere, one_operation, no_longer_alike, exactly, exactly_on_a_gpu, in_bfloat16]


@pytest.fixture
def own_settings() -> Iterator[None]:
    """Put everything back after a test that changes it."""
    yield
    for general in (torch.backends, cudnn, mkldnn):
        general.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = True


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize("choose", CHOICES)
@pytest.mark.parametrize(("device", "ours"), [("cpu", slice(2, 4)), ("cuda", slice(0, 2))])
def test_float32_is_computed_in_float32_and_settings_come_back(
    choose: Callable[[], None], device: str, ours: slice
) -> None:
    choose()
    before = settings()
    with exact(torch.device(device)):
        assert settings()[ours] == ["ieee"] * 2
    assert settings() == before


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize("choose", [everywhere, exactly, in_bfloat16])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("later", ["ieee", "tf32"])
def test_what_followed_a_general_setting_still_follows_it_afterwards(
    choose: Callable[[], None], device: str, later: str
) -> None:
    found = []
    for labels in (False, True):
        choose()
        if labels:
            with exact(torch.device(device)):
                pass
        torch.backends.fp32_precision = later  # type: ignore[attr-defined]
        found.append(settings())
    assert found[0] == found[1]


@pytest.mark.usefixtures("own_settings")
def test_settings_hold_for_a_thread_while_another_begins_and_ends() -> None:
    in_bfloat16()
    before, inside, others = settings(), Event(), []

    def other() -> None:
        inside.wait()
        with exact(CPU):
            others.append(settings())

    thread = Thread(target=other)
    thread.start()
    with exact(CPU):
        inside.set()
        thread.join(0.1)
        assert (others, settings()[2:4]) == ([], ["ieee"] * 2)
    thread.join()
    assert (others[0][2:4], settings()) == (["ieee"] * 2, before)


def test_products_are_float32_even_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16), exact(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
