"""Trajectory: one training, and its network as it was after some of its epochs."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn


class Average(nn.ModuleList):
    """Networks that answer as one, with the mean of their logits."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, K) logits for what each of the networks takes."""
        return torch.stack([network(images) for network in self]).mean(0)


def average(networks: Sequence[nn.Module]) -> nn.Module:
    """Return a network that answers with the mean of the logits of one or more."""
    return networks[0] if len(networks) == 1 else Average(networks)


class Trajectory(nn.Module):
    """A network that learns, and copies of it after the epochs that are named (weak teachers, arXiv 2408.08201).

    Copies hold buffers alone, so that they are stored with a training that is interrupted, and learn nothing.
    """

    def __init__(self, network: nn.Module, stages: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.stages = nn.ModuleDict({str(epoch): _still(network) for epoch in stages})

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the network as it is now."""
        logits: Tensor = self.network(images)
        return logits

    def reach(self, epoch: int) -> None:
        """Take a copy of the network if this is one of the epochs."""
        if str(epoch) in self.stages:
            self.stages[str(epoch)].load_state_dict(self.network.state_dict())

    def teacher(self) -> nn.Module:
        """Return a network that answers with the mean of the copies' logits."""
        networks = [deepcopy(self.network) for _ in self.stages]
        for network, stage in zip(networks, self.stages.values(), strict=True):
            network.load_state_dict(stage.state_dict())
        return average(networks)


def _still(network: nn.Module) -> nn.Module:
    """Return a copy whose parameters are buffers of the same names."""
    copy = deepcopy(network)
    for module in copy.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, value.detach())
    return copy
