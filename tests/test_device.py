"""Trainings use bfloat16 describe_device the hardware has it, and an archive says so."""

from collections.abc import Mapping

import pytest
import torch

from hellods.device import describe_device, training_dtype

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
