"""Compiled labels are those that were made without: for any number of images, in any precision; or one error."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._inductor import config

from hellods import HelloDataset
from hellods.errors import LabelError, OptionError
from hellods.labels.arithmetic import DTYPES, TOLERANCES, lower
from hellods.labels.compiled import compiled
from hellods.labels.config import Precision
from hellods.labels.projector import Projector

DIGITS = Path(__file__).parents[2] / "spec" / "vectors" / "valid" / "digits.hello"

if not any(map(shutil.which, ("g++", "c++", "clang++"))):
    pytest.skip("no C++ compiler on this machine", allow_module_level=True)


def network(precision: Precision) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    made = nn.Sequential(*layers).eval().requires_grad_(False)
    made[1].running_mean.uniform_(-3, 3)
    lower(made, precision)
    return made


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


def test_where_gradients_are_wanted_the_network_itself_is_asked() -> None:
    made = network("fp32")
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    compiled(made, made, torch.float32)(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_machine_without_a_compiler_is_told_what_to_leave_out() -> None:
    dataset = HelloDataset(DIGITS, compile=True)
    said = r"cannot be compiled here: .*No working C\+\+ compiler.*: leave out compile=True"
    none = config.patch({"cpp.cxx": (None, "/no/such/compiler"), "fx_graph_cache": False})
    with none, pytest.raises(LabelError, match=said):
        dataset[0][1].sum()


def test_only_true_or_false_will_do() -> None:
    with pytest.raises(OptionError, match="compile is 'yes', expected True or False"):
        HelloDataset(DIGITS, compile="yes")  # type: ignore[arg-type]


@pytest.mark.slow
def test_labels_of_an_archive_are_those_without_and_its_probe_is_asked_of_the_compiled_ones() -> None:
    plain, fast = (HelloDataset(DIGITS, train=False, compile=choice) for choice in (False, True))
    for count in (len(plain), 1, 3):
        expected, found = (dataset.batch(range(count))[1] for dataset in (plain, fast))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert fast.label_maker(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_projector_of_a_package_base_is_compiled_in_every_precision(precision: Precision) -> None:
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    made = Projector.create("hello-tiny", ("cat", "dog"), template="{}", ranks=(4, 2), seed=0, precision=precision)
    fast = Projector.restore(made.config, ("cat", "dog"), made.state(), compile=True).label(images)
    exact = made.label(images)  # in float32, for it is not merged
    assert (fast - exact).abs().max() / exact.abs().max() < (1e-5 if precision == "fp32" else TOLERANCES[precision])
