"""What an archive holds, as a pure function: (epoch, index) to view and label."""

from dataclasses import astuple, dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from hellods.data.lazy import LABELERS
from hellods.data.probe import check_probe
from hellods.errors import DigestError, FormatError, LabelError
from hellods.format import wire
from hellods.format.archive import Archive
from hellods.format.header import Header
from hellods.labels.config import ProjectorConfig
from hellods.record import from_json
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

if TYPE_CHECKING:  # open_clip costs seconds to import, and a worker never makes labels
    from hellods.labels.projector import Projector

LABEL_BATCH = 256  # views that the label maker sees at once; it bounds the memory, not the values

T = TypeVar("T")

Kind = Literal["soft", "logits", "hard"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """All that decides what a handle means: two data sets with equal options give equal labels."""

    path: str
    content_id: str
    seed: int
    labels: Kind
    temperature: float
    base: str | None

    def __post_init__(self) -> None:
        if self.labels not in ("soft", "logits", "hard"):
            raise LabelError(f"labels is {self.labels!r}, expected 'soft', 'logits' or 'hard'")
        if not self.temperature > 0 or (self.temperature != 1 and self.labels != "soft"):
            raise LabelError(f"temperature is {self.temperature}: it must be positive, and belongs to labels='soft'")
        if not 0 <= self.seed < 1 << 63:
            raise LabelError(f"seed is {self.seed}, expected 0 to 2**63 - 1")

    @cached_property
    def id(self) -> int:
        """63 bits, the same in every process."""
        return int.from_bytes(sha256(repr(astuple(self)).encode()).digest()[:8], "little") >> 1


class Samples:
    """The images, views and labels of one archive. Each part is read when it is first needed, then kept."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._images_on: dict[torch.device, Tensor] = {}

    @classmethod
    def of(cls, options: Options) -> Self:
        """Return the samples for these options that live in this process, or new ones."""
        found = LABELERS.get(options.id)
        if not isinstance(found, cls):
            found = LABELERS[options.id] = cls(options)
        return found

    @property
    def id(self) -> int:
        return self.options.id

    @cached_property
    def header(self) -> Header:
        with self._archive() as archive:
            return archive.header

    @property
    def classes(self) -> tuple[str, ...]:
        return self.header.classes

    @cached_property
    def views(self) -> Views:
        """How views are drawn; for hard labels, never mixed.

        Raises:
            FormatError: the header's rule is not one, or does not suit the images.
        """
        views, facts = self._parse(Views, "views"), self.header.images
        try:
            draw(views, (facts.height, facts.width), facts.count, self.options.seed, 0, torch.tensor([0]))
        except ValueError as cause:
            raise FormatError(f"{self.options.path}: header.views: {cause}") from cause
        # One class cannot name a mixture.
        return replace(views, mix="none") if self.options.labels == "hard" else views

    @cached_property
    def targets(self) -> Tensor:
        """int64 (N,), the class of each image."""
        with self._archive() as archive:
            return torch.tensor(archive.targets(), dtype=torch.int64)

    @cached_property
    def images(self) -> Tensor:
        """uint8 (N, 3, H, W), decoded once."""
        with self._archive() as archive:
            return torch.from_numpy(archive.pixels()).permute(0, 3, 1, 2).contiguous()

    @cached_property
    def projector(self) -> "Projector":
        """The label maker, on the CPU until labels are asked for elsewhere; it has answered the archive's probe.

        Raises:
            LabelError: the base model is missing or another one, or the probe's answers differ.
        """
        from hellods.labels.projector import Projector

        config = self._parse(ProjectorConfig, "projector")
        with self._archive() as archive:
            state = safetensors.torch.load(archive.read("projector"))
            probed = any(section.name == "probe" for section in self.header.sections)
            probe = safetensors.torch.load(archive.read("probe")) if probed else None
        projector = Projector.restore(config, self.classes, state, base=self.options.base)
        if probe is not None:
            check_probe(probe, projector, self.images, self.views, self.options.path)
        return projector

    def view(self, epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        """Return uint8 (B, 3, S, S) on `device` for int64 (B,) epochs and indices."""
        device = torch.empty(0, device=device).device  # "cuda" is "cuda:0"
        if device not in self._images_on:
            self._images_on[device] = self.images.to(device)
        images = self._images_on[device]
        side = (images.shape[2], images.shape[3])
        return render(
            images, draw(self.views, side, len(images), self.options.seed, epochs.to(device), indices.to(device))
        )

    def label(self, epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        """Return float32 (B, K) on `device`: the labels of the views of int64 (B,) epochs and indices."""
        batches = zip(torch.split(epochs, LABEL_BATCH), torch.split(indices, LABEL_BATCH), strict=True)
        return torch.cat([self.answer(self.view(*batch, device)) for batch in batches])

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Return float32 (B, K), the labels of uint8 images (B, 3, H, W), on their device."""
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.projector.to(images.device)(images).float()
        if self.options.labels == "soft":
            return torch.softmax(logits / self.options.temperature, dim=1)
        return logits

    def _parse(self, kind: type[T], key: str) -> T:
        newer = self.header.version > (wire.MAJOR, wire.MINOR)  # its unknown keys are ignored
        return from_json(kind, getattr(self.header, key), f"{self.options.path}: header.{key}", lenient=newer)

    def _archive(self) -> Archive:
        archive = Archive.open(self.options.path)
        if archive.content_id != self.options.content_id:
            archive.close()
            raise DigestError(
                f"{self.options.path}: the file was replaced after it was opened (content {archive.content_id[:12]}…, "
                f"was {self.options.content_id[:12]}…): make a new HelloDataset"
            )
        return archive
