"""A low-rank delta on any weight: Linear, attention input projection, Conv2d."""

import math
from collections.abc import Iterator

import torch
from open_clip.transformer import Attention, VisionTransformer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hellods.labels.quantize import pack, unpack

# The weights that a delta is put on, by module type.
WEIGHTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("weight",),
    nn.Conv2d: ("weight",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
    Attention: ("in_proj_weight",),
    VisionTransformer: ("proj",),
}


class LowRank(nn.Module):
    """A weight plus up·down, as in LoRA (Hu et al. 2021); zero at the start.

    A convolution's weight (O, I, h, w) counts as the matrix (O, I·h·w). Where the factors of an m×n matrix would hold
    no fewer numbers than the matrix itself, r·(m+n) ≥ m·n, the delta is stored whole.

    Attributes:
        bits: of the integers that the delta is rounded to wherever it is used; 0: it is not.
    """

    bits = 0

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.shape = weight.shape
        self.full = rank * (rows + columns) >= rows * columns
        if self.full:
            self.delta = nn.Parameter(torch.zeros(weight.shape))
        else:
            self.up = nn.Parameter(torch.zeros(rows, rank))
            self.down = nn.Parameter(torch.randn(rank, columns, generator=generator) / math.sqrt(columns))

    def forward(self, weight: Tensor) -> Tensor:
        if self.full:
            return weight + self._rounded(self.delta)
        return weight + (self._rounded(self.up) @ self._rounded(self.down)).view(self.shape)

    def _rounded(self, value: Tensor) -> Tensor:
        if not self.bits:
            return value
        # Gradients pass as if nothing were rounded (Bengio et al. 2013, arXiv 1308.3432).
        return value + (unpack(*pack(value, self.bits), value.shape, self.bits) - value).detach()


def adapt(module: nn.Module, rank: int, generator: torch.Generator) -> None:
    """Freeze `module` and put a trainable low-rank delta on each of its matrices and convolutions, in place."""
    module.requires_grad_(False)
    for owner, name in list(adaptable(module)):
        parametrize.register_parametrization(owner, name, LowRank(getattr(owner, name), rank, generator))


def adaptable(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield each (module, weight name) that takes a delta, in the order of `module.modules()`."""
    for owner in module.modules():
        for kind, names in WEIGHTS.items():
            if isinstance(owner, kind):
                yield from ((owner, name) for name in names if getattr(owner, name) is not None)


def round_deltas(module: nn.Module, bits: int) -> None:
    """Round each delta to integers of so many bits from here on; 0: not."""
    for delta in module.modules():
        if isinstance(delta, LowRank):
            delta.bits = bits


def merge(module: nn.Module) -> None:
    """Replace each adapted weight by its sum, in place: the same outputs at the cost of the bare module."""
    for owner in list(module.modules()):
        if parametrize.is_parametrized(owner):
            for name in list(owner.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(owner, name)
    module.requires_grad_(False)
