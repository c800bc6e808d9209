"""A low-rank delta: nothing at the start, gradients in the factors alone, merged for free."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from hellods.labels.lowrank import LowRank, adapt, adaptable, merge


class Tower(nn.Module):
    """Every kind of weight that takes a delta, and BatchNorm, which takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.norm = nn.BatchNorm2d(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.linear = nn.Linear(32, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.depthwise(self.conv(images))).flatten(2).transpose(1, 2)
        return self.linear(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.fixture
def tower() -> Tower:
    torch.manual_seed(0)
    return Tower().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def disturb(tower: nn.Module) -> None:
    for parameter in tower.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator()), alpha=0.1)


def test_adapted_tower_is_identical_at_the_start(tower: Tower, images: torch.Tensor) -> None:
    before = tower(images)
    adapt(tower, 2, generator())
    assert torch.equal(tower(images), before)


def test_every_matrix_and_convolution_takes_a_delta(tower: Tower) -> None:
    names = [name for _, name in adaptable(tower)]
    assert sorted(names) == ["in_proj_weight", "weight", "weight", "weight", "weight"]
    adapt(tower, 2, generator())
    assert all(parametrize.is_parametrized(owner, name) for owner, name in adaptable(tower))


def test_gradients_reach_the_deltas_and_nothing_else(tower: Tower, images: torch.Tensor) -> None:
    adapt(tower, 2, generator())
    disturb(tower)
    tower(images).square().sum().backward()
    for name, parameter in tower.named_parameters():
        if name.endswith((".up", ".down", ".delta")):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_merging_keeps_every_weight_bit_for_bit_and_leaves_a_bare_module(tower: Tower, images: torch.Tensor) -> None:
    adapt(tower, 2, generator())
    disturb(tower)
    weights = [getattr(owner, name).clone() for owner, name in adaptable(tower)]
    adapted = tower(images)
    merge(tower)
    for weight, (owner, name) in zip(weights, adaptable(tower), strict=True):
        assert torch.equal(getattr(owner, name), weight), name
    # torch takes another path through attention when nothing learns, so the outputs agree to rounding only.
    torch.testing.assert_close(tower(images), adapted, rtol=1e-5, atol=1e-5)
    assert not any(parametrize.is_parametrized(module) for module in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.parametrize(
    ("shape", "rank", "full"),
    [((32, 1, 3, 3), 8, True), ((64, 64, 3, 3), 8, False), ((16, 16), 8, True), ((16, 16), 7, False)],
)
def test_delta_is_whole_where_factors_would_be_no_smaller(shape: tuple[int, ...], rank: int, full: bool) -> None:
    delta = LowRank(torch.zeros(shape), rank, generator())
    assert delta.full is full
    matrix = torch.zeros(shape).numel()
    assert sum(parameter.numel() for parameter in delta.parameters()) <= matrix


def test_delta_has_at_most_its_rank() -> None:
    delta = LowRank(torch.zeros(40, 6, 3, 3), 4, generator())
    delta.up.data.normal_(generator=generator())
    assert torch.linalg.matrix_rank(delta(torch.zeros(40, 6, 3, 3)).flatten(1)) == 4
