"""Classifiers by name: ConvNets, ResNet-18 with a small-image stem, torchvision's and timm's."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
import torchvision
from torch import Tensor, nn

from hellods.device import float32_on_cpu
from hellods.errors import OptionError

WIDTH: Final = 128
DEPTHS: Final = {f"convnet{depth}": depth for depth in range(3, 7)}
SMALL_SIDE: Final = 64  # pixels; up to here ResNet-18 gets the stem for small images
# In training these return auxiliary outputs too; timm's Inception does not, and is taken instead.
AUXILIARY: Final = frozenset({"googlenet", "inception_v3"})


def create(name: str, classes: int, side: int, *, seed: int = 0) -> nn.Module:
    """Return an untrained classifier: float (B, 3, side, side) -> float (B, classes) logits.

    Args:
        name: `convnet3` to `convnet6`, `resnet18` (for images up to 64 px with the stem for small images), or any
            classifier of torchvision, else of timm.
        classes: number of logits.
        side: of the square images in pixels.
        seed: of the initial weights, which are float32 on the CPU; global random state is left as it was.

    Raises:
        OptionError: the name is unknown, or the network cannot take images of that side.
    """
    with float32_on_cpu(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _build(name, classes, side)
    try:
        shape = logits_shape(network, side)
    except Exception as cause:  # whatever a layer of someone else's network raises
        raise OptionError(f"network {name!r} cannot take images of {side} px: {cause}; choose another") from cause
    if shape != (1, classes):
        raise OptionError(f"network {name!r} returns {shape} instead of (1, {classes}) logits; choose a classifier")
    return network


def logits_shape(network: nn.Module, side: int) -> tuple[int, ...]:
    """Return the shape of what `network` makes of one image, (1, K) for a classifier; it is left as it was."""
    parameter = next(network.parameters(), torch.empty(0))
    with torch.no_grad(), in_mode(network, training=False):
        logits = network(parameter.new_zeros(1, 3, side, side))
    return tuple(logits.shape) if isinstance(logits, Tensor) else ()


def channels_last(network: nn.Module, side: int) -> nn.Module:
    """Return `network` with weights in channels_last, in which convolutions are faster, if it takes images so.

    A `view` of feature maps does not, nor does a convolution of three dimensions; such a network is left as it is.
    """
    try:
        logits_shape(network.to(memory_format=torch.channels_last), side)
    except Exception:  # whatever a layer of someone else's network raises
        network.to(memory_format=torch.contiguous_format)
    return network


@contextmanager
def in_mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a network into training or eval mode, and every part of it back into its own afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.train(training)
        yield
    finally:
        for module, before in modes:
            module.training = before


def convnet(depth: int, classes: int, side: int) -> nn.Sequential:
    """Return the ConvNet of Gidaris & Komodakis 2018, as data set distillation uses it since Zhao et al. 2021.

    Each block is a 3×3 convolution of 128 channels, BatchNorm, ReLU and 2×2 average pooling.
    """
    cells = side >> depth
    if not cells:
        raise OptionError(
            f"convnet{depth} halves images {depth} times: {side} px is too small, use {1 << depth} or more"
        )
    layers: list[nn.Module] = []
    for block in range(depth):
        layers += [
            nn.Conv2d(WIDTH if block else 3, WIDTH, 3, padding=1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTH * cells * cells, classes))


def resnet18(classes: int, side: int) -> nn.Module:
    """Return torchvision's ResNet-18; up to 64 px its stem is one 3×3 convolution of stride 1, as in RDED's code."""
    network: nn.Module = torchvision.models.resnet18(num_classes=classes)
    if side <= SMALL_SIDE:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network


def _build(name: str, classes: int, side: int) -> nn.Module:
    if name in DEPTHS:
        return convnet(DEPTHS[name], classes, side)
    if name == "resnet18":
        return resnet18(classes, side)
    published = set(torchvision.models.list_models(module=torchvision.models)) - AUXILIARY
    if name in published:
        return torchvision.models.get_model(name, num_classes=classes)  # type: ignore[no-any-return]
    import timm  # takes seconds

    if timm.is_model(name) and "." not in name:  # a dot begins the name of weights
        return timm.create_model(name, num_classes=classes)
    near = difflib.get_close_matches(name, sorted({*DEPTHS, *published, *timm.list_models()}), n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise OptionError(f"network {name!r} is unknown: use convnet3 to convnet6, or a name of torchvision or timm{hint}")
