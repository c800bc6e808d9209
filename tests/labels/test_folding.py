"""BatchNorm in the convolution before it: the same answers, deltas that learn as before, and no norm too many."""

from copy import deepcopy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hellods.labels.folding import fold
from hellods.labels.lowrank import adapt, merge


class StandardizedConv2d(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        return self._conv_forward(images, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


class Twice(nn.Module):
    """A norm whose convolution is read by something else too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        between = self.conv(images)
        return between + self.norm(between)  # type: ignore[no-any-return]


class Returned(Twice):
    """The answer holds what the convolution says, too."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        between = self.conv(images)
        return between, self.norm(between)


class Hidden(Twice):
    """A norm that no name leads to, so it stays where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [self.norm]

    def forward(self, images: Tensor) -> Tensor:
        return self.hidden[0](self.conv(images))  # type: ignore[no-any-return]


class Borrowed(Twice):
    """The weight of the convolution is used otherwise, too."""

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)) + self.conv.weight.abs().sum()  # type: ignore[no-any-return]


class Named(Twice):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(input=self.conv(images))  # type: ignore[no-any-return]


class Shared(nn.Module):
    """One norm behind two convolutions, or one convolution before two norms."""

    def __init__(self, convs: int, norms: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(convs)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(3) for _ in range(norms)])

    def forward(self, images: Tensor) -> Tensor:
        for turn in range(2):
            images = self.norms[turn % len(self.norms)](self.convs[turn % len(self.convs)](images))
        return images


def unlike_ones(network: nn.Module) -> nn.Module:
    """Return the network with norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("weight", "bias", "running_mean", "running_var"):
                if (value := getattr(module, name)) is not None:
                    value.data.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network.eval().requires_grad_(False)


FOLDED = {
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
    "with a bias, in groups": lambda: nn.Sequential(nn.Conv2d(3, 9, 3, groups=3), nn.BatchNorm2d(9)),
    "without scales and shifts": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)),
    "an activation in the norm": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormAct2d(8)),
    "its input given by name": Named,
    "two": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)),
}
LEFT = {
    "read twice": Twice,
    "read and returned": Returned,
    "behind no name": Hidden,
    "a weight that is used otherwise": Borrowed,
    "one norm for two": lambda: Shared(2, 1),
    "one convolution for two": lambda: Shared(1, 2),
    "a convolution of another kind": lambda: nn.Sequential(StandardizedConv2d(3, 8, 3), nn.BatchNorm2d(8)),
    "no convolution": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)),
    "something between": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)),
    "something between, in place": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(True), nn.BatchNorm2d(8)),
    "statistics of each batch": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
}


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FOLDED)
def test_norm_is_folded(name: str, images: Tensor) -> None:
    network = unlike_ones(FOLDED[name]())
    before = network(images)
    fold(network, images[:1])
    assert norms(network) == 0
    torch.testing.assert_close(network(images), before, rtol=1e-5, atol=1e-5)
    merge(network)
    torch.testing.assert_close(network(images), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LEFT)
def test_norm_is_left(name: str, images: Tensor) -> None:
    network = unlike_ones(LEFT[name]())
    before, count = network(images), norms(network)
    fold(network, images[:1])
    assert norms(network) == count
    assert all(map(torch.equal, tree_leaves(network(images)), tree_leaves(before)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_deltas_stay_on_a_network_that_is_left(images: Tensor) -> None:
    network = unlike_ones(Borrowed())
    adapt(network, 1, torch.Generator().manual_seed(0))
    before = network(images)
    fold(network, images[:1])
    assert torch.equal(network(images), before)
    assert [name for name, value in network.named_parameters() if value.requires_grad] == [
        "conv.parametrizations.weight.0.up",
        "conv.parametrizations.weight.0.down",
    ]


def test_deltas_learn_as_before(images: Tensor) -> None:
    plain = unlike_ones(nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 8, 3)))
    adapt(plain, 2, torch.Generator().manual_seed(2))
    deltas = {name: value for name, value in plain.named_parameters() if value.requires_grad}
    for value in deltas.values():
        value.data.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(3)), alpha=0.1)
    folded = deepcopy(plain)
    fold(folded, images[:1])
    assert {name for name, value in folded.named_parameters() if value.requires_grad} == deltas.keys()
    for network in (plain, folded):
        network(images).square().sum().backward()
    for name, value in deltas.items():
        torch.testing.assert_close(folded.get_parameter(name).grad, value.grad, rtol=1e-4, atol=1e-4)


def test_network_without_norms_is_not_run() -> None:
    fold(nn.Conv2d(3, 8, 3), torch.zeros(1, 5, 8, 8))  # it would not take these
