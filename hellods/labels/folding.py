"""BatchNorm folded into the convolution before it: the same answers, without its passes over memory."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import type_before_parametrizations as kind
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Subclasses may compute otherwise, as timm's convolutions with standardized weights do.
NORMS: Final = (nn.BatchNorm2d, BatchNormAct2d)
NEAR: Final = 1e-4  # of the largest answer; folding moves a MobileNetV2's by 4e-6


class Scaled(nn.Module):
    """A convolution's weight with a factor for each channel of its output."""

    gain: Tensor

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain, persistent=False)  # (O, 1, 1, 1)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.gain


@torch.no_grad()
def fold(network: nn.Module, images: Tensor) -> None:
    """Fold each BatchNorm of a frozen network in eval mode, in place, where a convolution feeds it and nothing else.

    What lies on the convolution's weight already, such as a delta, still learns, and as before. A network that would
    answer otherwise afterwards is left as it is. The norm is that of inference, as in Jacob et al. 2018 (arXiv
    1712.05877, section 3.2).

    Args:
        images: some that the network takes: one run tells what feeds what, another whether the answers are the same.
    """
    if not any(type(module) in NORMS for module in network.modules()):
        return
    names = defaultdict(list)
    for name, module in network.named_modules(remove_duplicate=False):
        names[module].append(name)
    pairs, before = _pairs(network, images)
    biases: list[Any] = [convolution.bias for convolution, _ in pairs]
    for convolution, norm in pairs:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        ones = torch.ones(convolution.out_channels, 1, 1, 1)
        gain, bias = fuse_conv_bn_weights(ones, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias)
        parametrize.register_parametrization(convolution, "weight", Scaled(gain.data))
        convolution.bias = bias.requires_grad_(False)
        for name in names[norm]:
            network.set_submodule(name, _rest(norm))
    if not all(map(_near, _tensors(network(images)), before)):
        for (convolution, norm), bias in zip(pairs, biases, strict=True):
            _unscale(convolution)
            convolution.bias = bias
            for name in names[norm]:
                network.set_submodule(name, norm)


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a norm does after normalizing."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _tensors(answer: Any) -> list[Tensor]:
    return [value for value in tree_leaves(answer) if isinstance(value, Tensor)]


def _near(value: Tensor, before: Tensor) -> bool:
    return bool((value - before).abs().max() <= NEAR * before.abs().max())


def _unscale(convolution: nn.Conv2d) -> None:
    parametrizations: Any = convolution.parametrizations
    if len(parametrizations.weight) > 1:
        del parametrizations.weight[-1]
    else:
        parametrize.remove_parametrizations(convolution, "weight", leave_parametrized=False)


def _pairs(network: nn.Module, images: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], list[Tensor]]:
    """Return each convolution whose output goes to one norm, and to nothing else, with that norm; and the answers.

    Each of them runs once.
    """
    runs: Counter[nn.Module] = Counter()
    fed: list[tuple[int, nn.BatchNorm2d]] = []
    reads = _Reads()

    def after(convolution: nn.Conv2d, _: tuple[Tensor], output: Tensor) -> None:
        reads.outputs[id(output)] = convolution, output
        runs[convolution] += 1

    def before(norm: nn.BatchNorm2d, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        runs[norm] += 1
        (given,) = (*args, *kwargs.values())
        if id(given) in reads.outputs:
            fed.append((id(given), norm))

    hooks = []
    for module in network.modules():
        if kind(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after))
        elif kind(module) in NORMS:
            hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        with reads:
            answers = _tensors(network(images))
    finally:
        for hook in hooks:
            hook.remove()
    pairs = [
        (reads.outputs[output][0], norm)
        for output, norm in fed
        if reads.counts[output] == 1 and norm.running_mean is not None
    ]
    return [(convolution, norm) for convolution, norm in pairs if runs[convolution] == runs[norm] == 1], answers


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often operations read each output of a convolution."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by id, which no other has while the tensor is held
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.counts.update(id(value) for value in tree_leaves((args, kwargs)) if id(value) in self.outputs)
        return func(*args, **(kwargs or {}))
