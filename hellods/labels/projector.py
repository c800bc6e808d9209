"""Projector: a frozen CLIP image tower and a head from text embeddings, adapted by low-rank deltas."""

import re
from collections.abc import Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hellods.errors import FormatError
from hellods.labels.backbones import BACKBONES, Backbone, load_base
from hellods.labels.compiled import compiled
from hellods.labels.config import Head, Precision, ProjectorConfig, Quantization
from hellods.labels.embedded import restore, stored
from hellods.labels.folding import fold
from hellods.labels.lowrank import adapt, merge, round_deltas
from hellods.labels.parts import in_parts
from hellods.labels.precision import DTYPES, cast, exact
from hellods.labels.quantize import BITS, pack, unpack


class Projector(nn.Module):
    """A label maker (HeLlO, Yu et al. 2024, arXiv 2408.08201): it starts as zero-shot CLIP and learns a teacher.

    Only the low-rank deltas, a bias per class and the logit scale learn; they are stored, and prototypes if there are.
    """

    gain: Tensor
    shift: Tensor

    def __init__(
        self,
        config: ProjectorConfig,
        backbone: Backbone,
        generator: torch.Generator,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.tower = backbone.tower
        self.published = backbone.tower.state_dict()  # as it was before anything was done to it, until `merge`
        self._dtype = torch.float32  # that the tower computes in
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (config.preprocess.mean, config.preprocess.std))
        self.register_buffer("gain", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        weight = texts(config, backbone) if config.head == "text" else self._prototypes(state)  # (K, D)
        self.head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.head.weight.data.copy_(weight)
        adapt(self.tower, config.encoder_rank, generator)
        # A folded bias rounds alike everywhere: in bfloat16 a MobileNetV2's largest error grows from 4 to 7 % so.
        if config.precision == "fp32":
            side, noise = config.preprocess.side, torch.Generator().manual_seed(0)
            fold(self.tower, torch.randn(1, 3, side, side, generator=noise))
        adapt(self.head, config.head_rank, generator)
        self.bias = nn.Parameter(torch.zeros(len(weight)))
        self.scale = nn.Parameter(torch.tensor(backbone.scale))
        self.eval().to(memory_format=torch.channels_last)

    @classmethod
    def create(
        cls,
        base: str,
        descriptions: Sequence[str],
        *,
        template: str,
        ranks: tuple[int, int],
        seed: int,
        quantization: Quantization = "fp16",
        head: Head = "text",
        precision: Precision = "fp32",
    ) -> Self:
        """Return a projector that equals zero-shot CLIP and can be fitted.

        Args:
            base: names a base model, see `load_open_clip`.
            descriptions: one text a class, in the order of the classes.
            template: what `{}` stands in for a description, or several between `|`.
            ranks: of the deltas on the tower and on the head.
            seed: of the deltas' initial values.
            quantization: how the deltas are stored.
            head: `prototypes` needs `set_prototypes` before it says anything.
            precision: that labels are made in.

        Raises:
            LabelError: the base model cannot be had.
        """
        backbone = BACKBONES["open_clip"](base, head)
        config = ProjectorConfig(
            base=backbone.name,
            base_sha256=backbone.sha256,
            quick_gelu=backbone.quick_gelu,
            preprocess=backbone.preprocess,
            template=template,
            descriptions=tuple(descriptions),
            encoder_rank=ranks[0],
            head_rank=ranks[1],
            quantization=quantization,
            head=head,
            precision=precision,
        )
        return cls(config, backbone, torch.Generator().manual_seed(seed))

    @classmethod
    def restore(
        cls,
        config: ProjectorConfig,
        classes: Sequence[str],
        state: dict[str, Tensor],
        *,
        embedded: dict[str, Tensor] | None = None,
        base: str | None = None,
        compile: bool = False,
    ) -> Self:
        """Return the projector that an archive describes, its deltas merged, at the cost of the bare tower.

        Args:
            config: from the archive's header.
            classes: of the archive; their number must be that of the descriptions.
            state: the tensors of the archive's `projector` section.
            embedded: the tensors of its `backbone` section, if it has one.
            base: overrides the base model that the archive holds or names. One that open_clip does not know by itself
                must be given, so that a file cannot choose what is downloaded.
            compile: makes labels by compiled code, see `compiled`.

        Raises:
            LabelError: the base model is missing, or differs from the one that the archive was made with.
            FormatError: the tensors do not fit the base model.
            UnsupportedError: the base model is in the archive, and the installed timm does not know it.
        """
        if len(classes) != len(config.descriptions):
            raise FormatError(f"projector: {len(config.descriptions)} descriptions for {len(classes)} classes [C7]")
        if config.tower is not None and embedded is not None and base is None:
            backbone = restore(config, config.tower, embedded)
        else:
            backbone = load_base(config, base)
        projector = cls(config, backbone, torch.Generator().manual_seed(0), state)
        projector.load(state)
        projector.merge()
        if compile:
            projector._embed = compiled(projector._embed, projector.tower, projector._dtype)  # type: ignore[method-assign, assignment]
        return projector

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 logits (B, K), on the projector's device, for uint8 images (B, 3, H, W), not normalized."""
        logits: Tensor = self.scale * self.head(self.features(images)) + self.bias
        return logits

    @torch.no_grad()
    def label(self, images: Tensor) -> Tensor:
        """Return what `forward` does, whatever arithmetic the caller chose for training."""
        with exact(self.gain.device):
            logits: Tensor = self(images)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Return the image tower's normalized features, float32 (B, D), for the same images."""
        facts, pixels = self.config.preprocess, images.to(self.gain.device)
        if images.shape[2:] != (facts.side, facts.side):
            size, mode = (facts.side, facts.side), facts.interpolation
            pixels = F.interpolate(pixels.float(), size=size, mode=mode, antialias=True)
        with parametrize.cached():  # the sum of weight and delta, for all parts
            return in_parts(self._embed, pixels, self.tower)

    def _embed(self, pixels: Tensor) -> Tensor:
        normalized = torch.addcmul(self.shift, pixels.float(), self.gain).contiguous(memory_format=torch.channels_last)
        features = self.tower(normalized.to(self._dtype))
        # CoCa's tower returns its tokens beside the pooled features.
        return F.normalize((features[0] if isinstance(features, tuple) else features).float(), dim=-1)

    def set_prototypes(self, prototypes: Tensor) -> None:
        """Start the head at normalized features (K, D) of the classes, as float16 keeps them, instead of texts."""
        self._start.data.copy_(prototypes.half())

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: the tower is frozen, its BatchNorm statistics with it."""
        return super().train(False)

    def learned(self) -> dict[str, nn.Parameter]:
        """Return what is fitted and stored, by name: `tower.layer1.0.conv2.weight.up`, `bias`, …"""
        learned = {name: value for name, value in self.named_parameters() if value.requires_grad}
        # The archive's names must not depend on how torch spells a parametrization.
        return {re.sub(r"parametrizations\.(\w+)\.0\.", r"\1.", name): value for name, value in learned.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the stored tensors, on the CPU: bias and scale in float32, deltas as the config's quantization says.

        The float16 scales of an integer delta `NAME` are `NAME.scales`, see `pack`.
        """
        state = {"prototypes": self._start.detach().cpu().half()} if self.config.head == "prototypes" else {}
        for name, parameter in self.learned().items():
            value = parameter.detach().cpu()
            if value.ndim < 2:
                state[name] = value
            elif bits := BITS.get(self.config.quantization, 0):
                state[name], state[f"{name}.scales"] = pack(value, bits)
            else:
                state[name] = value.half().contiguous()
        return state

    def base(self) -> dict[str, Tensor]:
        """Return the tensors of the base model that labels need, on the CPU: what `restore` takes as `embedded`."""
        return stored(self.published, self._start if self.config.head == "text" else None)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over stored tensors.

        Raises:
            FormatError: names, shapes or values do not fit.
        """
        if self.config.head == "prototypes":
            self.set_prototypes(_checked(state, self._start.shape))
            state = {name: value for name, value in state.items() if name != "prototypes"}
        learned, bits = self.learned(), BITS.get(self.config.quantization, 0)
        packed = {name for name, value in learned.items() if bits and value.ndim > 1}
        if unlike := state.keys() ^ (learned.keys() | {f"{name}.scales" for name in packed}):
            name = min(unlike)
            raise FormatError(f"projector: tensor {name!a} is {'unknown' if name in state else 'missing'} [C7]")
        for name, target in learned.items():
            value = state[name]
            try:
                if name in packed:
                    value = unpack(value, state[f"{name}.scales"], target.shape, bits)
                elif value.dtype != (stored := torch.float32 if target.ndim < 2 else torch.float16):
                    raise ValueError(f"{value.dtype}, expected {stored}")
                if value.shape != target.shape:
                    raise ValueError(f"shape {tuple(value.shape)}, expected {tuple(target.shape)}")
                if not value.isfinite().all():
                    raise ValueError("values that are not finite")
            except ValueError as cause:
                raise FormatError(f"projector: tensor {name!a} has {cause} [C7]") from cause
            target.data.copy_(value)

    @property
    def _start(self) -> Tensor:
        """What the head's delta is added to."""
        start: Tensor = self.head.parametrizations.weight.original  # type: ignore[union-attr, assignment]
        return start

    def _prototypes(self, state: Mapping[str, Tensor] | None) -> Tensor:
        """Return what the head starts at, (K, D): what is stored, so that a file gets no more room; None: zeros."""
        side = self.config.preprocess.side
        shape = (len(self.config.descriptions), self.features(torch.zeros(1, 3, side, side)).shape[1])
        return torch.zeros(shape) if state is None else _checked(state, shape)

    def quantize(self) -> None:
        """Make labels with the deltas rounded as they will be stored, from here on; what is fitted makes up for it."""
        round_deltas(self, BITS.get(self.config.quantization, 0))

    def merge(self) -> None:
        """Fold the deltas into the weights, and store the tower's in the config's precision, in place.

        Nothing can be fitted or stored afterwards.
        """
        self.published = {}
        merge(self.tower)
        merge(self.head)
        self.requires_grad_(False)
        cast(self.tower, self.config.precision)
        self._dtype = DTYPES[self.config.precision]


def _checked(state: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Return the stored prototypes.

    Raises:
        FormatError: they are missing, or not finite float16 numbers (K, D).
    """
    value = state.get("prototypes")
    if value is None or (value.shape, value.dtype) != (tuple(shape), torch.float16) or not value.isfinite().all():
        raise FormatError(f"projector: tensor 'prototypes' is missing, or not {tuple(shape)} finite float16 [C7]")
    return value.float()


def texts(config: ProjectorConfig, backbone: Backbone) -> Tensor:
    """Return the normalized embeddings (K, D) of the descriptions, averaged over the templates."""
    if backbone.texts is not None:
        return backbone.texts
    assert backbone.embed is not None
    parts = config.template.split("|")
    prompts = [part.replace("{}", description) for part in parts for description in config.descriptions]
    embedded = backbone.embed(prompts).view(len(parts), len(config.descriptions), -1)
    return F.normalize(embedded.mean(0), dim=-1)
