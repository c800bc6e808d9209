"""A base model inside an archive: its image tower as facts and tensors, and back without open_clip's text side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import open_clip
import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hellods.errors import DigestError, FormatError, UnsupportedError
from hellods.labels.backbones import Backbone, base_digest
from hellods.labels.config import ProjectorConfig, Tower
from hellods.labels.models import LEAST_TEXT, first_line, quiet

ROOM: Final = 1 << 22  # numbers made in passing, such as the classifier of a network of timm's
MAKERS: Final = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


def stored(tower: Mapping[str, Tensor], texts: Tensor | None) -> dict[str, Tensor]:
    """Return what the section `backbone` holds of a tower's tensors, and of embeddings where the head starts at texts.

    Float tensors alone, on the CPU: the others, such as BatchNorm's counts of batches, have no part in labels.
    """
    held = {f"tower.{name}": _shortest(value) for name, value in tower.items() if value.is_floating_point()}
    return held if texts is None else held | {"texts": _shortest(texts)}


def _shortest(value: Tensor) -> Tensor:
    """Return the tensor in float16 if that holds each of its numbers exactly, else in float32."""
    value = value.detach().to("cpu", torch.float32, copy=True).contiguous()
    half = value.half()
    return half if torch.equal(half.float(), value) else value


def restore(config: ProjectorConfig, tower: Tower, tensors: Mapping[str, Tensor]) -> Backbone:
    """Return the base model that an archive holds, as `load_open_clip` would, from what `stored` returned.

    No network, no file and no text tower has a part in it.

    Raises:
        FormatError: tensors and facts do not fit each other.
        UnsupportedError: a network that the installed timm does not know.
    """
    for name, value in tensors.items():
        if value.dtype not in (torch.float16, torch.float32) or not value.isfinite().all():
            raise FormatError(f"backbone: tensor {name!a:.80} is not finite numbers in float16 or float32 [C8]")
    network = build(tower, config.quick_gelu, sum(value.numel() for value in tensors.values()))
    own = {f"tower.{name}": value.shape for name, value in network.state_dict().items() if value.is_floating_point()}
    found = {name: value.shape for name, value in tensors.items() if name != "texts"}
    if unlike := own.items() ^ found.items():
        name, _ = min(unlike)
        expected = tuple(own[name]) if name in own else "none"
        raise FormatError(f"backbone: tensor {name!a:.80} is {_shape(found.get(name))}, expected {expected} [C8]")
    network.load_state_dict({name.removeprefix("tower."): tensors[name] for name in found}, strict=False)
    if base_digest(network.state_dict()) != tower.sha256:
        raise DigestError("backbone: the tensors differ from the SHA-256 that projector.tower states [C8]")
    texts, expected = tensors.get("texts"), (len(config.descriptions), _width(network, tower))
    if (texts is not None) != (config.head == "text") or (texts is not None and texts.shape != expected):
        needed = expected if config.head == "text" else "none"
        shape = _shape(None if texts is None else texts.shape)
        raise FormatError(f"backbone: tensor 'texts' is {shape}, expected {needed} [C8]")
    return Backbone(
        name=config.base,
        tower=network,
        embed=None,
        scale=1.0,  # learned, and stored beside the deltas
        preprocess=config.preprocess,
        sha256=config.base_sha256,
        quick_gelu=config.quick_gelu,
        texts=None if texts is None else texts.float(),
    )


def build(tower: Tower, quick_gelu: bool, numbers: int) -> nn.Module:
    """Return the image tower that the facts describe, frozen, its weights still random.

    Args:
        tower: may come from anyone.
        quick_gelu: in place of GELU, in a network of open_clip's own.
        numbers: how many weights the file holds; a tower that would have many more is refused.

    Raises:
        FormatError: no tower is built so.
        UnsupportedError: a network that the installed timm does not know.
    """
    if tower.timm_model_name is not None and not timm.is_model(tower.timm_model_name):
        raise UnsupportedError(f"backbone: this timm has no {tower.timm_model_name!a}: install a newer one [C8]")
    vision = {name: value for name, value in asdict(tower).items() if name not in ("sha256", "embed_dim")}
    vision["layers"] = tower.layers[0] if len(tower.layers) == 1 else list(tower.layers)
    try:
        with quiet(), torch.random.fork_rng(devices=[]), Budget(numbers + ROOM):
            model = open_clip.CLIP(tower.embed_dim, vision, LEAST_TEXT, quick_gelu)
    except Exception as cause:  # open_clip and timm assert, divide and index as they go
        raise FormatError(
            f"backbone: no image tower is built as projector.tower says: {first_line(cause)} [C8]"
        ) from cause
    network: nn.Module = model.visual
    return network.eval().requires_grad_(False)


class Budget(TorchFunctionMode):
    """Raise where modules would be made of more numbers than these, before memory is written."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in MAKERS:
            self.left -= func(*args, **kwargs | {"device": "meta"}).numel()
            if self.left < 0:
                raise ValueError("it has more weights than the file")
        return func(*args, **kwargs)


def _width(network: nn.Module, tower: Tower) -> int:
    """Return D, the length of what the tower answers."""
    try:
        with torch.no_grad():
            answer = network(torch.zeros(1, 3, tower.image_size, tower.image_size))
        features = answer[0] if isinstance(answer, tuple) else answer
        count, width = features.shape
    except Exception as cause:
        raise FormatError(f"backbone: the image tower cannot answer: {first_line(cause)} [C8]") from cause
    if count != 1:
        raise FormatError(f"backbone: the image tower answers one image with {count} rows [C8]")
    return int(width)


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))
