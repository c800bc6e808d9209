"""Trainings use bfloat16 where the hardware has it; a clock counts its work once."""

from collections.abc import Mapping

import pytest
import torch

from hellods.device import Clock, describe_device, training_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "dtype", "said"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32, "threads"),
        ({"avx512_bf16": True}, torch.bfloat16, "threads with bfloat16"),
        ({"amx_bf16": True}, torch.bfloat16, "threads with bfloat16"),
        ({"neon": True}, torch.float32, "threads"),
    ],
)
def test_cpu_trains_in_bfloat16_if_it_has_that(
    monkeypatch: pytest.MonkeyPatch, capabilities: Mapping[str, bool], dtype: torch.dtype, said: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert training_dtype(CPU) == training_dtype("cpu") == dtype
    assert describe_device(CPU).endswith(said)


def test_torch_that_does_not_say_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert training_dtype(CPU) == torch.float32


def test_clock_adds_up_what_is_spent_under_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(torch.device("cpu"))
    for name, spent in (("views", 2.0), ("labels", 0.5), ("views", 1.0)):
        with clock(name):
            now += spent
    assert clock.seconds == {"views": 3.0, "labels": 0.5}
