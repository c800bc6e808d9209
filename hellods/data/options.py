"""What a user chose of an archive's views and labels, checked once."""

import operator
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from hashlib import sha256
from math import inf
from numbers import Real
from typing import Any, Literal, TypeVar

from hellods.errors import DigestError, FormatError, OptionError
from hellods.format.archive import Archive
from hellods.format.header import Header
from hellods.knobs import bounded, wrong_field
from hellods.labels.config import ProjectorConfig
from hellods.record import from_json
from hellods.views.rule import Mix, Views

T = TypeVar("T")
Kind = Literal["soft", "logits", "hard"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """All that decides what a handle means: two data sets with equal options give equal labels."""

    path: str
    content_id: str
    seed: int = bounded(0, 2**63 - 1)
    view: Views | None  # None: the images as they are stored
    train: bool  # False: the center of each image, in the size of `view`
    views: int | None = bounded(1, 2**31 - 1)  # how many an image has before they repeat
    labels: Kind
    temperature: float
    base: str | None
    compile: bool

    def __post_init__(self) -> None:
        if fault := wrong_field(self):
            raise OptionError(fault)
        if not 0 < self.temperature < inf or (self.temperature != 1 and self.labels != "soft"):
            raise OptionError(f"temperature is {self.temperature!r}: it must be positive, and belongs to labels='soft'")
        if self.views is not None and not self.drawn:
            raise OptionError(f"views={self.views} belongs to drawn views: leave out train=False and view=None")

    @property
    def drawn(self) -> bool:
        """Whether chance decides what an image shows."""
        return self.train and self.view is not None

    @property
    def period(self) -> int | None:
        """After how many epochs an image shows the same again; None: never."""
        return self.views if self.drawn else 1

    @cached_property
    def id(self) -> int:
        """63 bits, the same in every process."""
        return int.from_bytes(sha256(repr(astuple(self)).encode()).digest()[:8], "little") >> 1

    def open(self, known: Archive | None = None) -> Archive:
        """Return the archive, of which nothing is read anew where it was opened before, as `known`.

        Raises:
            DigestError: the file is another one by now.
        """
        archive = Archive.open(self.path, known)
        if archive.content_id != self.content_id:
            archive.close()
            raise DigestError(
                f"{self.path}: the file was replaced after it was opened (content {archive.content_id[:12]}…, "
                f"was {self.content_id[:12]}…): make a new HelloDataset [H5]"
            )
        return archive


def plain_int(value: Any) -> Any:
    """Return an integer of any type, NumPy's say, as an int, and anything else as it is."""
    if not isinstance(value, bool):
        with suppress(TypeError):
            return operator.index(value)
    return value


def plain_float(value: Any) -> Any:
    """Return a number of any type as a float, and anything else as it is."""
    return value if isinstance(value, bool) or not isinstance(value, Real) else float(value)


def read_views(header: Header, path: str) -> Views:
    """Return the rule of views that stands in an archive.

    Raises:
        FormatError: it is not one, or does not suit the images.
    """
    where = f"{path}: header.views"
    views = _part(Views, header.views, header, where, "H23")
    try:
        views.check(header.images.height, header.images.width)
    except OptionError as cause:
        raise FormatError(f"{where}: {cause} [H23]") from cause
    return views


def read_projector_config(header: Header, path: str) -> ProjectorConfig:
    """Return what an archive says of its projector.

    Raises:
        FormatError: it has none, or it is not described as it must be.
    """
    return _part(ProjectorConfig, header.projector, header, f"{path}: header.projector", "C7")


def choose_views(
    own: Views, header: Header, *, view: Views | Literal["archive"] | None, train: bool, mix: Mix | None, labels: Kind
) -> Views | None:
    """Return the rule that a user wants: the archive's `own` or another one, mixed as it says or in another way.

    Raises:
        OptionError: it is not a rule, does not suit the images, or is at odds with another option.
    """
    rule = own if view == "archive" else view
    if rule is not None and not isinstance(rule, Views):
        raise OptionError(f"view is {view!r}, expected hellods.Views, or None for images as they are stored")
    if mix not in (None, "none") and (rule is None or not train):
        raise OptionError(f"mix={mix!r} belongs to views that are drawn: leave out train=False and view=None")
    if labels == "hard":
        if mix not in (None, "none"):
            raise OptionError(f"mix={mix!r} needs soft labels: one class cannot name a mixture")
        mix = "none"
    if rule is None:
        return None
    rule = rule if mix is None else replace(rule, mix=mix)
    rule.check(header.images.height, header.images.width)
    return rule


def _part(kind: type[T], value: Any, header: Header, where: str, rule: str) -> T:
    return from_json(kind, value, where, lenient=header.newer, error=lambda text: FormatError(f"{text} [{rule}]"))
