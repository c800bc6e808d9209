"""Compiled labels are those that were made without: for any number of images, in any precision; or one error."""

import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torch._inductor import config

from hellods import HelloDataset
from hellods.data.samples import CHECKED
from hellods.errors import LabelError
from hellods.labels.compiled import compiled
from hellods.labels.config import Precision
from hellods.labels.precision import DTYPES, TOLERANCES, cast
from hellods.labels.projector import Projector

DIGITS = Path(__file__).parents[2] / "spec" / "vectors" / "valid" / "digits.hello"

takes_a_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no C++ compiler on this machine"
)


def network(precision: Precision) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    made = nn.Sequential(*layers).eval().requires_grad_(False)
    made[1].running_mean.uniform_(-3, 3)
    cast(made, precision)
    return made


@takes_a_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_any_number_of_images_is_answered_as_without(precision: Precision) -> None:
    made, dtype = network(precision), DTYPES[precision]
    images = torch.randn(9, 3, 8, 8).to(dtype)
    with torch.no_grad():
        before = made(images).float()
        ask = compiled(made, made, dtype)
        for count in (9, 1, 4):
            off = (ask(images[:count]).float() - before[:count]).abs().max() / before.abs().max()
            assert off < (1e-5 if precision == "fp32" else 5e-3)


@takes_a_compiler
def test_no_images_have_no_labels(tmp_path: Path) -> None:
    labels = HelloDataset(shutil.copy(DIGITS, tmp_path), compile=True).label_maker(
        torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    )
    assert labels.shape == (0, 10)


def test_python_that_torch_cannot_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.15+")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(LabelError, match=r"cannot be compiled here: .*3\.15\+: leave out compile=True"):
        HelloDataset(DIGITS, compile=True)[0][1].sum()


def test_probe_that_disagrees_names_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hellods.labels.projector.compiled", lambda answer, *_: lambda images: answer(images).flip(1))
    dataset = HelloDataset(shutil.copy(DIGITS, tmp_path), compile=True)  # a label maker that no other test shares
    with pytest.raises(
        LabelError, match=r"differ from the archive's probe .*; or its compiler is: leave out compile=T"
    ):
        dataset[0][1].sum()


@takes_a_compiler
def test_a_tenth_label_maker_is_compiled_too() -> None:
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad(), torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for made in [network("fp32") for _ in range(10)]:
            compiled(lambda shown, made=made: made(shown), made, torch.float32)(images)


def test_machine_without_a_compiler_is_told_what_to_leave_out() -> None:
    dataset = HelloDataset(DIGITS, compile=True)
    said = r"cannot be compiled here: .*No working C\+\+ compiler.*: leave out compile=True"
    none = config.patch({"cpp.cxx": (None, "/no/such/compiler"), "fx_graph_cache": False})
    with none, pytest.raises(LabelError, match=said):
        dataset[0][1].sum()


@takes_a_compiler
@pytest.mark.slow
def test_labels_of_an_archive_are_those_without_and_its_probe_is_asked_of_the_compiled_ones() -> None:
    plain, fast = (HelloDataset(DIGITS, train=False, compile=choice) for choice in (False, True))
    for count in (len(plain), 1, 3):
        expected, found = (dataset.batch(range(count))[1] for dataset in (plain, fast))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert fast._samples.projector(torch.device("cpu")) in CHECKED


@takes_a_compiler
@pytest.mark.slow
@pytest.mark.parametrize("precision", get_args(Precision))
def test_projector_of_a_package_base_is_compiled_in_every_precision(precision: Precision) -> None:
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    made = Projector.create("hello-tiny", ("cat", "dog"), template="{}", ranks=(4, 2), seed=0, precision=precision)
    fast = Projector.restore(made.config, ("cat", "dog"), made.state(), compile=True).label(images)
    exact = made.label(images)  # in float32, for it is not merged
    assert (fast - exact).abs().max() / exact.abs().max() < (1e-5 if precision == "fp32" else TOLERANCES[precision])
