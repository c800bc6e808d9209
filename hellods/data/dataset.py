"""HelloDataset: an archive as a PyTorch data set of (image, label)."""

import operator
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from hellods.data.epochs import Epochs
from hellods.data.handover import Handover, Scale, reserve
from hellods.data.lazy_label import LazyLabel
from hellods.data.memory import Batches
from hellods.data.options import Kind, Options, choose_views, plain_float, plain_int, read_views
from hellods.data.samples import Samples
from hellods.device import CPU, compute_device, to_device
from hellods.errors import OptionError
from hellods.format.archive import Archive
from hellods.format.files import local
from hellods.format.header import Header
from hellods.views.normalize import normalize
from hellods.views.rule import Mix, Views

# What samples follow from, and nobody can change later.
CHOSEN: Final = ("seed", "view", "train", "mix", "views", "labels", "temperature", "base", "compile")


class HelloDataset(Dataset[tuple[Any, Any]]):
    """A data set of (image, label), another view of each image in every epoch, for any DataLoader.

    `image` is float32 (3, S, S), normalized with the archive's mean and deviation. `label` is lazy: a float32 tensor
    (K,) that is computed when a batch is moved by `.to(device)`, or first used, outside the workers. It is the label
    maker's answer to that very view.

    The epoch of a sample is how often its index was drawn before, over all workers, until `set_epoch` is called.
    An image is decoded when it is first needed, and kept for all processes that this one starts; where the system
    cannot share memory with processes that are not forked, each of those decodes for itself. A GPU on which labels are
    made keeps all images too, as uint8, where they take no more than half of its free memory then. On Linux a data set
    also keeps the memory through which its workers hand over batches, of as many as ever were on their way at a time,
    and no more than a quarter of the machine's. Keep the data set as long as batches of its workers come.

    Args:
        path: The `.hello` file.
        seed: Seed of the views, 0 to 2^63 - 1.
        view: The rule by which views are drawn, in place of the file's; None for the images as they are stored,
            (3, H, W).
        train: False for the largest square in the middle of each image, in the size of a view; not another split.
        mix: How two images are mixed in a view, in place of what the rule says; the label is that of the mixed image.
            The other may be any image of the file: where a Subset shall not see the rest, take "none".
        views: How many views an image has: they repeat after so many epochs, and each label is made once, rounded to
            float16 and kept by the process that asks for it, up to 1 GiB of them. With view=None or train=False an
            image has one label, which is kept likewise.
        labels: "soft" for probabilities, "logits", or "hard" for the image's class as an int, which needs no base
            model; views are not mixed then, since one class cannot name a mixture.
        temperature: What "soft" divides the logits by; the loss must divide the student's by it, too. At 1, for losses
            that divide by nothing, students learn less from the same file: 56 % in place of 61 at 4, with ten images of
            CIFAR-10 a class.
        transform: A function that is called last, on each image as it would be returned; the label describes the view
            before it.
        normalize: False for views as uint8.
        base: The base model, where the file names one that only the user can provide; or in place of the one that the
            file holds.
        compile: True for labels by compiled code (`torch.compile`), which takes a C++ compiler on this machine, on a
            GPU Triton. On two cores of an EPYC labels of a MobileNetV2 take 0.92 of the time so in float32, and 0.83 in
            bfloat16; what is mostly matrix products gains less. It compiles for half a minute and more at the first
            label, and again for a single image, in inference mode, and when torch's settings change; its copy of the
            weights stays in memory.

    Raises:
        HelloError: not a `.hello` file that can be read.
        OptionError: an option that cannot be used with this archive.
        LabelError: raised by the first label when the base model is missing or another one than the archive was made
            with.
    """

    transform: Callable[[Tensor], Any] | None
    normalize: bool
    _epochs: Epochs
    _handover: Handover | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        seed: int = 0,
        view: Views | Literal["archive"] | None = "archive",
        train: bool = True,
        mix: Mix | None = None,
        views: int | None = None,
        labels: Kind = "soft",
        temperature: float = 1.0,
        transform: Callable[[Tensor], Any] | None = None,
        normalize: bool = True,
        base: str | None = None,
        compile: bool = False,
    ) -> None:
        if not (transform is None or callable(transform)):
            raise OptionError(f"transform is {transform!r}, expected a function of an image")
        if not isinstance(normalize, bool):
            raise OptionError(f"normalize is {normalize!r}, expected True or False")
        path = str(local(path).absolute())  # a worker may have another working directory,
        if isinstance(base, str) and base.startswith("local-dir:"):  # and labels may be made in one
            base = f"local-dir:{Path(base.removeprefix('local-dir:')).absolute()}"
        with Archive.open(path) as archive:
            header, content_id = archive.header, archive.content_id
        if header.projector is None and labels != "hard":
            raise OptionError(f"{path}: the archive has no projector: take labels='hard'")
        options = Options(
            path=path,
            content_id=content_id,
            seed=plain_int(seed),
            view=choose_views(read_views(header, path), header, view=view, train=train, mix=mix, labels=labels),
            train=train,
            views=plain_int(views),
            labels=labels,
            temperature=plain_float(temperature),
            base=base,
            compile=compile,
        )
        epochs = Epochs(header.images.count)
        state = {"options": options, "memory": None, "_epochs": epochs, "_handover": reserve()}
        self.__setstate__(state | {"transform": transform, "normalize": normalize})
        self._samples.header = header
        _ = self._samples.images  # their memory, before workers are forked

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("_samples", "_batches", "targets")}
        return {"options": self._samples.options, "memory": self._samples.memory} | kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The file is opened again with the first sample: an error here would kill a worker without a message.
        self._samples = Samples.of(state["options"], state["memory"])
        self._batches = Batches()
        vars(self).update({name: value for name, value in state.items() if name not in ("options", "memory")})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CHOSEN and type(self) is HelloDataset:  # a subclass may call its own so
            raise AttributeError(f"{name} is chosen when a file is opened: make another HelloDataset with {name}=")
        super().__setattr__(name, value)

    @property
    def header(self) -> Header:
        """What the archive says of itself."""
        return self._samples.header

    @property
    def view(self) -> Views | None:
        """The rule by which views are drawn; None where images are as they are stored."""
        return self._samples.options.view

    @property
    def temperature(self) -> float:
        """What soft labels divide the logits by; in the loss divide the student's logits by it, too."""
        return self._samples.options.temperature

    @property
    def seed(self) -> int:
        """The seed of the views."""
        return self._samples.options.seed

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return list(self._samples.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class by its name."""
        return {name: index for index, name in enumerate(self._samples.classes)}

    @cached_property
    def targets(self) -> list[int]:
        """The class of each image, as the file has it: to change this list changes no label."""
        return self._samples.targets.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Draw every later sample from this epoch (0 to 2^31 - 1), in all workers, instead of counting draws.

        Raises:
            ValueError: the epoch is beyond that.
        """
        self._epochs.set(epoch)

    def label_maker(self, images: Tensor) -> Tensor:
        """Return float32 (B, K) labels, as `labels=` says, of uint8 images (B, 3, H, W), on their device.

        For training loops that mix or transform images themselves.

        Raises:
            LabelError: the base model is missing or another one, or these are no such images.
            OptionError: labels="hard".
        """
        if self._samples.options.labels == "hard":
            raise OptionError("labels='hard' makes no labels: open the archive with labels='soft' or 'logits'")
        return self._samples.answer(images)

    def __len__(self) -> int:
        return self.header.images.count

    def __repr__(self) -> str:
        options = self._samples.options
        return (
            f"HelloDataset {self.header.name!a}: {len(self)} images of {len(self.classes)} classes\n"
            f"    view={options.view}, train={options.train}, labels={options.labels!r}"
        )

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        try:
            place = operator.index(index)
        except TypeError as cause:
            raise TypeError(
                f"a sample is chosen by one int, not by {type(index).__name__}: for a part of the data set take "
                "torch.utils.data.Subset(dataset, indices), for a batch dataset.batch(indices)"
            ) from cause
        return self._get([place])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, Any]]:
        if type(self).__getitem__ is not HelloDataset.__getitem__:  # that of a subclass adds to it
            return [self[index] for index in indices]
        return self._get(indices, self._handover)

    def _get(self, indices: Sequence[int], handover: Handover | None = None) -> list[tuple[Any, Any]]:
        epochs, chosen = self._draw(indices)
        views, images = self._samples.view(epochs, chosen, CPU), None
        if handover is not None and self.transform is None:
            images = handover.lend(views, self._scale())
        if images is None:
            images = self._finish(views)
        if self._samples.options.labels == "hard":
            return list(zip(images, self._samples.targets[chosen].tolist(), strict=True))
        handles = torch.stack([torch.full_like(epochs, self._samples.id), epochs, chosen], dim=1)
        width, labelers = len(self._samples.classes), (self._samples,)
        return list(zip(images, LazyLabel.each(handles, width, labelers), strict=True))

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> tuple[Any, Tensor]:
        """Return (images, labels) of these samples, both made on `device`; the labels are values.

        The images are those of `__getitem__`, collated. The labels are float32 (B, K), or int64 (B,) if they are hard.

        Raises:
            IndexError: there is no such image.
            TypeError: `indices` are not whole numbers, or a mask.
            LabelError: the base model is missing or another one.
        """
        return self._begin(indices, torch.device(device))()

    def _begin(self, indices: Sequence[int], device: torch.device) -> Callable[[], tuple[Any, Tensor]]:
        """Begin `batch`, and return what ends it: samples are drawn, images that must be decoded are on their way."""
        epochs, chosen = self._draw(indices)
        samples, coming = self._samples, self._samples.begin(epochs, chosen, device)

        def batch() -> tuple[Any, Tensor]:
            views = coming()
            hard = samples.options.labels == "hard"
            labels = (
                to_device(samples.targets[chosen], device) if hard else samples.label(epochs, chosen, device, views)
            )
            images = self._finish(views)
            return images if isinstance(images, Tensor) else default_collate(images), labels

        return batch

    def _resident(self, device: torch.device) -> bool:
        """Whether all images are decoded and where views for `device` are made."""
        return self._samples.images.complete(compute_device(device)) is not None

    def _draw(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        count, indices = len(self), list(indices)
        if indices and (isinstance(indices[0], (bool, np.bool_)) or getattr(indices[0], "dtype", None) == torch.bool):
            raise TypeError("samples are chosen by their indices, not by a mask: take mask.nonzero().flatten()")
        try:
            indices = [operator.index(index) for index in indices]
        except TypeError as cause:
            raise TypeError(f"samples are chosen by a list of whole numbers: {cause}") from cause
        if beyond := [index for index in indices if not -count <= index < count]:
            raise IndexError(f"image {beyond[0]} of the {count} of {self.header.name!a}")
        chosen = [range(count)[index] for index in indices]  # which takes what counts from the end
        epochs, period = self._epochs.take(chosen), self._samples.options.period
        return epochs if period is None else epochs % period, torch.tensor(chosen, dtype=torch.int64, device=CPU)

    def _scale(self) -> Scale:
        facts = self._samples.header.images
        return (facts.mean, facts.std) if self.normalize else None

    def _finish(self, views: Tensor) -> Any:
        """Return the images of views: a tensor, or a list of what `transform` makes of each."""
        images, scale = views, self._scale()
        if scale is not None:
            out = self._batches.empty(views.shape, torch.float32) if views.is_cpu else None
            images = normalize(views, *scale, out)
        return images if self.transform is None or not len(images) else [self.transform(image) for image in images]
