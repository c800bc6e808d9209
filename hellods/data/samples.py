"""What an archive holds, as a pure function: (epoch, index) to view and label."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakSet, WeakValueDictionary

import safetensors.torch
import torch
from torch import Tensor

from hellods.data.images import Images
from hellods.data.label_cache import LabelCache
from hellods.data.lazy_label import LABELERS, check_fork, check_worker
from hellods.data.memory import Shared
from hellods.data.options import Options, read_projector_config, read_views
from hellods.device import CPU, compute_device, float32_on_cpu, to_device
from hellods.errors import HelloError, LabelError
from hellods.format import wire
from hellods.format.header import Header
from hellods.labels import precision
from hellods.labels.precision import exact
from hellods.probe import Probe, answer_probe, probe_fault
from hellods.threads import in_own_thread
from hellods.views.draw import Draw, draw, middle
from hellods.views.render import render
from hellods.views.rule import Views

if TYPE_CHECKING:  # open_clip costs seconds to import, and a worker never makes labels
    from hellods.labels.projector import Projector

# What the label maker sees at once, in views and in pixel values; it bounds the memory, not the labels.
LABEL_BATCH: Final = 256
LABEL_VALUES: Final = 1 << 27
LEAST: Final = 2.0**-24  # above 0 in float16
# What all data sets of one file share in this process: its images by (path, content id), and its label makers by (path,
# content id, the base model that the user gave, whether they are compiled, device).
IMAGES: Final[WeakValueDictionary[tuple[str, str], Images]] = WeakValueDictionary()
PROJECTORS: Final[WeakValueDictionary[tuple[str, str, str | None, bool, torch.device], "Projector"]] = (
    WeakValueDictionary()
)
CHECKED: Final[WeakSet["Projector"]] = WeakSet()  # that the archive's probe was asked of


class Samples:
    """The images, views and labels of one archive. Each part is read when it is first needed, then kept."""

    def __init__(self, options: Options, memory: Shared | None = None) -> None:
        self.options = options
        self._given = memory
        self._projectors: dict[torch.device, Projector] = {}

    @classmethod
    def of(cls, options: Options, memory: Shared | None) -> Self:
        """Return the samples for these options that live in this process, or new ones.

        Args:
            options: of the data set.
            memory: of the images in the process that started this one.
        """
        found = LABELERS.get(options.id)
        if not isinstance(found, cls):
            found = LABELERS[options.id] = cls(options, memory)
        return found

    @property
    def id(self) -> int:
        return self.options.id

    @cached_property
    def header(self) -> Header:
        with self.options.open() as archive:
            return archive.header

    @property
    def classes(self) -> tuple[str, ...]:
        return self.header.classes

    @property
    def kind(self) -> str:
        labels, temperature = self.options.labels, self.options.temperature
        return f"labels={labels!r}" if temperature == 1 else f"labels={labels!r} at temperature={temperature:g}"

    @cached_property
    def targets(self) -> Tensor:
        """int64 (N,), the class of each image."""
        with self.options.open() as archive:
            return torch.tensor(archive.targets(), dtype=torch.int64, device=CPU)

    @property
    def memory(self) -> Shared | None:
        """What the images are kept in, for processes that this one starts."""
        return self.images.memory if "images" in vars(self) else self._given

    @cached_property
    def images(self) -> Images:
        file = (self.options.path, self.options.content_id)
        images = IMAGES.get(file)
        if images is None:
            images = IMAGES[file] = Images(self.header, self.options.open, self._given)
        return images

    def projector(self, device: torch.device) -> "Projector":
        """Return the label maker on a device, each of which has its own.

        Raises:
            LabelError: the base model is missing or another one.
        """
        if device not in self._projectors:
            self._projectors[device] = in_own_thread(self._shared, device)
        return self._projectors[device]

    def _shared(self, device: torch.device) -> "Projector":
        with precision.LOCK:  # since torch has one cache of parametrized weights for all threads
            key = self._key(device)
            shared = PROJECTORS.get(key)
            if shared is None:
                shared = PROJECTORS[key] = self._restore(device)
            return shared

    def _key(self, device: torch.device) -> tuple[str, str, str | None, bool, torch.device]:
        options = self.options
        return options.path, options.content_id, options.base, options.compile, device

    def _restore(self, device: torch.device) -> "Projector":
        from hellods.labels.projector import Projector

        base, compile = self.options.base, self.options.compile
        config = read_projector_config(self.header, self.options.path)
        with self.options.open() as archive:
            state = safetensors.torch.load(archive.read("projector"))
            held = config.tower is not None and base is None
            embedded = safetensors.torch.load(archive.read("backbone")) if held else None
        try:
            # Without a draw from the caller's random numbers, which all threads share.
            with float32_on_cpu(), exact(CPU), torch.random.fork_rng(devices=[]):
                made = Projector.restore(config, self.classes, state, embedded=embedded, base=base, compile=compile)
        except HelloError as cause:
            raise type(cause)(f"{self.options.path}: {cause}") from cause
        return made.to(device)

    @torch.no_grad()
    def _check(self, device: torch.device) -> None:
        """Answer the archive's probe on a device on which no label was made so far.

        Raises:
            LabelError: the answers differ.
        """
        path, header = self.options.path, self.header
        if any(section.name == "probe" for section in header.sections):
            with self.options.open() as archive:
                tensors = safetensors.torch.load(archive.read("probe"))
            probe, rule = Probe.read(tensors, header.images.count, len(header.classes), path), read_views(header, path)

            def view(device: torch.device, epochs: Tensor, indices: Tensor) -> Tensor:
                rows, drawn = _drawn(rule, header, wire.PROBE_SEED, epochs, indices).compact()
                return render(self.images.some(rows, device)(), drawn)  # a GPU need not hold all for these few

            def answer(device: torch.device) -> Tensor | None:
                return answer_probe(probe, rule.size, partial(view, device), self._logits)

            if fault := probe_fault(probe, answer, device, self.projector(device).config.precision):
                compiler = "; or its compiler is: leave out compile=True" if self.options.compile else ""
                self._projectors.pop(device, None)  # the next one may be made without the fault
                PROJECTORS.pop(self._key(device), None)
                raise LabelError(f"{path}: {fault}{compiler}")
        CHECKED.add(self.projector(device))

    @cached_property
    def _cache(self) -> LabelCache | None:
        period = self.options.period
        if period is None:
            return None
        return LabelCache(period * self.header.images.count, len(self.classes), self.options.path)

    def view(self, epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        """Return uint8 (B, 3, S, S) on `device` for int64 (B,) epochs and indices, which are on the CPU.

        Images as they are stored are (B, 3, H, W).
        """
        return self.begin(epochs, indices, device)()

    def begin(self, epochs: Tensor, indices: Tensor, device: torch.device) -> Callable[[], Tensor]:
        """Begin `view`, and return what ends it; where images must be decoded, threads begin at once."""
        options = self.options
        return self._begin(options.view, options.seed if options.train else None, epochs, indices, device)

    def _begin(
        self, rule: Views | None, seed: int | None, epochs: Tensor, indices: Tensor, device: torch.device
    ) -> Callable[[], Tensor]:
        """Begin views of any rule; None: the images as they are stored. Without a seed they show the middle."""
        check_fork(device)
        if compute_device(device) != device:
            made = self._begin(rule, seed, epochs, indices, compute_device(device))
            return lambda: made().to(device)
        whole = self.images.complete(device)
        if whole is not None:
            places = to_device(indices, device)
            drawn = self._draw(rule, seed, to_device(epochs, device), places)
            return lambda: _show(whole, drawn, places)
        drawn = self._draw(rule, seed, epochs, indices)
        holding = self.images.holding(indices if drawn is None else drawn.shown, device)
        if holding is not None:
            return lambda: _show(holding(), drawn, indices)
        if drawn is None:
            rows, places = torch.unique(indices, return_inverse=True)
        else:
            rows, drawn = drawn.compact()
            places = drawn.index
        images = self.images.some(rows, device)
        return lambda: _show(images(), drawn, places)

    def label(self, epochs: Tensor, indices: Tensor, device: torch.device, views: Tensor | None = None) -> Tensor:
        """Return float32 (B, K) on `device`: the labels of the views of int64 (B,) epochs and indices, on the CPU.

        `views` are these views, on `device`, where they are at hand.
        """
        if compute_device(device) != device:
            seen = None if views is None else views.to(compute_device(device))
            return self.label(epochs, indices, compute_device(device), seen).to(device)
        view, facts = self.options.view, self.header.images
        size = _at_once(3 * (facts.height * facts.width if view is None else view.size**2))
        parts = [slice(start, start + size) for start in range(0, max(1, len(indices)), size)]
        labels = [
            self._label(epochs[part], indices[part], device, None if views is None else views[part]) for part in parts
        ]
        return torch.cat(labels)

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Return float32 (B, K), the labels of uint8 images (B, 3, H, W), on their device."""
        check_worker("the label maker")
        if not isinstance(images, Tensor):
            raise TypeError(f"the label maker takes a tensor of images, not {type(images).__name__}")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise LabelError(
                f"the label maker takes uint8 images (B, 3, H, W), not normalized; got {images.dtype} "
                f"{tuple(images.shape)}: normalize them after"
            )
        if compute_device(images.device) != images.device:
            return self.answer(images.to(compute_device(images.device))).to(images.device)
        if self.projector(images.device) not in CHECKED:
            in_own_thread(self._check, images.device)
        logits = self._logits(images)
        if self.options.labels == "soft":
            return torch.softmax(logits / self.options.temperature, dim=1)
        return logits

    def _logits(self, images: Tensor) -> Tensor:
        if not len(images):  # with which compiled code would end the process
            return torch.empty(0, len(self.classes), device=images.device)
        projector, parts = self.projector(images.device), torch.split(images, _at_once(images.shape[1:].numel()))
        return torch.cat([projector.label(part) for part in parts])

    def _label(self, epochs: Tensor, indices: Tensor, device: torch.device, views: Tensor | None) -> Tensor:
        if self._cache is None:
            return self.answer(self.view(epochs, indices, device) if views is None else views)

        def make(some: Tensor) -> Tensor:
            shown = self.view(epochs[some], indices[some], device) if views is None else views[to_device(some, device)]
            return self.answer(shown)

        kept = self._cache.get(epochs * self.header.images.count + indices, make)
        labels = to_device(kept, device).float()
        if self.options.labels == "soft":  # which float16 rounds to zeros, and to a sum beside 1
            labels = labels.clamp(min=LEAST)
            labels = labels / labels.sum(1, keepdim=True)
        return labels

    def _draw(self, rule: Views | None, seed: int | None, epochs: Tensor, indices: Tensor) -> Draw | None:
        if rule is None:
            return None
        if seed is None:
            return middle(rule.size, (self.header.images.height, self.header.images.width), indices)
        return _drawn(rule, self.header, seed, epochs, indices)


def _drawn(rule: Views, header: Header, seed: int, epochs: Tensor, indices: Tensor) -> Draw:
    facts = header.images
    return draw(rule, (facts.height, facts.width), facts.count, seed, epochs, indices)


def _at_once(values: int) -> int:
    """Return how many images of so many values the label maker sees at once."""
    return max(1, min(LABEL_BATCH, LABEL_VALUES // max(1, values)))


def _show(images: Tensor, drawn: Draw | None, places: Tensor) -> Tensor:
    return images[to_device(places, images.device)].contiguous() if drawn is None else render(images, drawn)
