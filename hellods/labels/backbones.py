"""BACKBONES: public CLIP models by name; their image tower, text embeddings, preprocessing and digest."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from safetensors import SafetensorError
from torch import Tensor, nn

from hellods.errors import FormatError, LabelError
from hellods.labels.config import Head, Preprocess, ProjectorConfig
from hellods.labels.models import (
    CONFIG,
    change,
    check_texts,
    describe,
    first_line,
    image_tower,
    mend,
    quiet,
    remedy,
    resolve,
    tokenizer_of,
    whole,
)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen CLIP: `tower` maps float (B, 3, S, S) to (B, D); `embed` maps texts to normalized (K, D)."""

    name: str  # as the archive states it: never a path
    tower: nn.Module
    embed: Callable[[Sequence[str]], Tensor] | None  # None: there is no text tower
    scale: float  # what cosines are multiplied with to become logits
    preprocess: Preprocess
    sha256: str
    quick_gelu: bool  # as ProjectorConfig has it
    texts: Tensor | None = None  # (K, D), of the archive's own classes, where it holds them in place of a text tower


def load_open_clip(base: str, head: Head = "text") -> Backbone:
    """Return an open_clip model on the CPU, in float32 and eval mode.

    Args:
        base: one of this package's own (`OWN`), `MODEL/TAG` with one of open_clip's own pretrained tags (downloaded on
            first use), `hf-hub:OWNER/NAME`, or `local-dir:FOLDER` (open_clip_config.json and safetensors weights).
        head: `prototypes` takes the image tower alone, and needs no text tower to be there.

    Raises:
        LabelError: no such model, its weights cannot be had, or it has no text tower for a head of texts.
    """
    name, options = resolve(base)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
            facts, images = describe(options)
            if head == "text":
                check_texts(base, facts)
            model = whole(options) if head == "text" else image_tower(options, facts)
    except LabelError:
        raise
    except Exception as cause:  # open_clip raises whatever its loaders and the network raise
        advice = mend(options) if isinstance(cause, SafetensorError) else remedy(base)
        raise LabelError(f"base model {base!r} cannot be loaded: {first_line(cause)}. {advice}") from cause
    model.eval().requires_grad_(False)

    def embed(texts: Sequence[str]) -> Tensor:
        tokenizer = tokenizer_of(base, options, facts)
        with torch.no_grad():
            return torch.cat([model.encode_text(tokenizer(list(part)), normalize=True) for part in _chunks(texts)])

    reader, used = (embed, model) if head == "text" else (None, model.visual)
    return Backbone(
        name=name,
        tower=model.visual,
        embed=reader,
        scale=model.logit_scale.exp().item(),
        preprocess=preprocessing(base, model.visual.image_size, images),
        sha256=base_digest(used.state_dict()),
        # Asked of the modules: config, name and tag each have a say, and none where a network is timm's.
        quick_gelu=any(isinstance(module, QuickGELU) for module in used.modules()),
    )


BACKBONES: dict[str, Callable[[str, Head], Backbone]] = {"open_clip": load_open_clip}


def load_base(config: ProjectorConfig, base: str | None) -> Backbone:
    """Return the base model of an archive that does not hold it, or in place of the one that it holds.

    Raises:
        LabelError: it is missing, or another one.
        FormatError: the archive says that it takes other images than it does.
    """
    if base is None and ":" in config.base:
        hint = config.base.removeprefix("given:")
        raise LabelError(
            f"the labels need the base model {hint!a} (SHA-256 {config.base_sha256[:12]}…), which is not in the "
            f"file and not one of open_clip's own: give it as `base='local-dir:FOLDER'`"
        )
    base = config.base if base is None else base
    backbone = BACKBONES[config.architecture](base, config.head)
    if backbone.sha256 != config.base_sha256:
        raise LabelError(
            f"base model {base!a} has SHA-256 {backbone.sha256[:12]}…, but the archive was made "
            f"with {config.base_sha256[:12]}…: its labels would be wrong. {change(base, config.base)}"
        )
    if backbone.quick_gelu != config.quick_gelu:
        here, there = ("GELU", "QuickGELU") if config.quick_gelu else ("QuickGELU", "GELU")
        raise LabelError(
            f"base model {base!a} computes with {here}, but the archive was made with {there}: its labels would be "
            f'wrong. Set "quick_gelu": {str(config.quick_gelu).lower()} in the model_cfg of its {CONFIG}'
        )
    if config.preprocess != backbone.preprocess:
        raise FormatError(f"projector: preprocess is not that of the base model, {backbone.preprocess} [C7]")
    return backbone


def preprocessing(base: str, size: int | Sequence[int], images: Mapping[str, Any]) -> Preprocess:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise LabelError(f"base model {base!r} takes images of {size}, and views are square: choose another")
    try:
        mean, std = (_channels(images[name]) for name in ("mean", "std"))
        return Preprocess(side=sides.pop(), mean=mean, std=std, interpolation=images["interpolation"])
    except (ValueError, TypeError) as cause:
        raise LabelError(f"base model {base!r}: {cause}; mend its {CONFIG}, or choose another") from cause


def _channels(value: float | Sequence[float]) -> tuple[float, ...]:
    """Return what a config says of the channels: one number is that of all three, as open_clip reads it."""
    return (float(value),) * 3 if isinstance(value, (int, float)) else tuple(map(float, value))


def base_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the float tensors that labels come from: name, shape and float32 bytes, sorted by name."""
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        # What CoCa writes captions with has no part in labels.
        if tensor.is_floating_point() and not name.startswith("text_decoder."):
            state.update(f"{name} {list(tensor.shape)}\n".encode())
            state.update(tensor.detach().float().contiguous().numpy().tobytes())
    return state.hexdigest()


def _chunks(texts: Sequence[str], size: int = 256) -> list[Sequence[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]
