"""The lazy label: a tensor of handles that becomes values in the process that needs them."""

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.overrides import resolve_name
from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from hellods.data.lazy import Lazy, plain, shape_of
from hellods.device import CPU, to_device
from hellods.errors import LabelError


class Labeler(Protocol):
    """Who turns handles into values."""

    @property
    def id(self) -> int:
        """What handles name it by: the same in every process that can make the same labels."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """The names of the K classes."""
        ...

    @property
    def kind(self) -> str:
        """What its labels are, as the options of a data set spell it."""
        ...

    def label(self, epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        """Return float32 (B, K) on `device` for int64 (B,) epochs and indices."""
        ...


# The one piece of global state: a label that comes out of a worker has only the id of the data set it belongs to.
LABELERS: WeakValueDictionary[int, Labeler] = WeakValueDictionary()


class LazyLabel(Lazy):
    """A float32 tensor (K,) or (B, K) whose values are made when `.to(device)` or an operation first needs them.

    What it holds are int64 handles (labeler, epoch, index), of shape (3,) or (B, 3), so it crosses workers as a few
    bytes. Shape, dtype, length, `repr`, stacking and slicing leave it lazy. A row or a slice is a view, as of any
    tensor: its values are made with those of the whole. `torch.save`, `copy` and `pickle` take the values.

    Raises:
        LabelError: values are needed in a DataLoader worker, the data set is gone, or one batch holds labels of other
            classes, of another kind, or at another temperature.
    """

    _handles: Tensor
    _labelers: tuple[Labeler, ...]  # kept alive while the label is
    _whole: "tuple[LazyLabel, int | range] | None"  # the label that this is a row, or some rows, of; and which

    @classmethod
    def of(cls, handles: Tensor, width: int, labelers: tuple[Labeler, ...] | None = None) -> "LazyLabel":
        """Return a label of int64 handles (..., 3) for `width` classes; labelers not given are looked up by id."""
        if labelers is None:
            found = map(LABELERS.get, dict.fromkeys(handles[..., 0].flatten().tolist()))
            labelers = tuple(labeler for labeler in found if labeler is not None)
        with torch.inference_mode(False):
            return cls._from(handles, (*handles.shape[:-1], width), labelers)

    @classmethod
    def each(cls, handles: Tensor, width: int, labelers: tuple[Labeler, ...]) -> "list[LazyLabel]":
        """Return the label of each row of int64 handles (B, 3)."""
        with torch.inference_mode(False):
            return [cls._from(row, (width,), labelers) for row in handles.unbind()]

    @classmethod
    def _from(cls, handles: Tensor, shape: tuple[int, ...], labelers: tuple[Labeler, ...]) -> "LazyLabel":
        label = cls._new(shape, torch.float32)
        label._handles, label._labelers, label._whole = handles, labelers, None
        return label

    def _found(self) -> Tensor | None:
        if self._made is not None or self._whole is None:
            return self._made
        whole, rows = self._whole
        values = whole._found()
        return None if values is None else _rows_of(values, rows)

    def _values_on(self, device: torch.device, operation: Callable[..., Any]) -> Tensor:
        if device.type == "meta":  # which keeps no values
            return self._values_on(CPU, operation).to(device)
        with torch.inference_mode(False), torch.enable_grad():  # what is kept is used in any mode
            if self._whole is not None:
                whole, rows = self._whole
                values = whole._values_on(device, operation)
                if self._made is None or self._made.device != values.device:
                    self._made = _rows_of(values, rows)
                return self._made
            if self._made is None:
                check_worker(resolve_name(operation) or getattr(operation, "__name__", "this"))
                check_fork(device)
                self._made = _ask(self, device)
            self._made = self._made.to(device)
            return self._made


def _rows_of(values: Tensor, rows: int | range) -> Tensor:
    """Return a view of one row, or of some."""
    return values[rows] if isinstance(rows, int) else values[rows.start : rows.stop : rows.step]


def check_worker(operation: str) -> None:
    """Raise a LabelError in a DataLoader worker, where the label maker is never built."""
    if get_worker_info() is not None:
        raise LabelError(
            f"{operation} needs label values, which a DataLoader worker does not make: do it after the loader, or with "
            "num_workers=0, or take labels='hard'"
        )


def check_fork(device: torch.device) -> None:
    """Raise a LabelError if `device` is CUDA's and this process was forked from one that uses CUDA."""
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise LabelError(
            f"{device} cannot be used in a process that was forked from one that uses CUDA: start it by 'spawn' or "
            "'forkserver', or move images and labels in the first process"
        )


def _ask(label: LazyLabel, device: torch.device) -> Tensor:
    handles = label._handles.reshape(-1, 3)
    labelers = {labeler.id: labeler for labeler in label._labelers}
    keys = list(dict.fromkeys(handles[:, 0].tolist()))
    for key in keys:
        if key not in labelers:
            raise LabelError("the HelloDataset of these labels is gone from this process: keep it while they are used")
        if list(labelers[key].classes) != list(label._labelers[0].classes):
            raise LabelError("one batch mixes labels of data sets whose classes differ: load them apart")
        if labelers[key].kind != (kind := label._labelers[0].kind):
            raise LabelError(f"one batch mixes {kind} and {labelers[key].kind}: load them apart")
    if len(keys) == 1:
        return labelers[keys[0]].label(handles[:, 1], handles[:, 2], device).view(shape_of(label))
    values = torch.empty(len(handles), shape_of(label)[-1], dtype=torch.float32, device=device)
    for key in keys:
        rows = (handles[:, 0] == key).nonzero()[:, 0]
        values[to_device(rows, device)] = labelers[key].label(handles[rows, 1], handles[rows, 2], device)
    return values.view(shape_of(label))


def _memory_fact(fact: Callable[..., bool], label: LazyLabel, *args: Any) -> bool:
    made = label._found()  # which torch would ask for
    return made is not None and fact(made, *args)


def _repr(label: LazyLabel, *_: Any, **__: Any) -> str:
    made = label._found()
    return f"LazyLabel(shape={tuple(shape_of(label))}, not computed)" if made is None else repr(made)


def _to(label: LazyLabel, *args: Any, **kwargs: Any) -> Tensor:
    device = CPU
    for wanted in (*args, *kwargs.values()):
        if isinstance(wanted, Tensor):
            device = wanted.device
        elif isinstance(wanted, (torch.device, str, int)) and not isinstance(wanted, bool):
            device = torch.device(wanted)
    return label._values_on(device, Tensor.to).to(*args, **kwargs)


def _cuda(
    label: LazyLabel, device: torch.device | int | str | None = None, non_blocking: bool = False, **kwargs: Any
) -> Tensor:
    return _to(label, "cuda" if device is None else device, non_blocking=non_blocking, **kwargs)


def _get(label: LazyLabel, index: Any) -> Tensor:
    some = isinstance(index, (int, slice)) and not isinstance(index, bool) and label._handles.ndim > 1
    if some and label._found() is None:
        part = LazyLabel.of(label._handles[index], shape_of(label)[-1], label._labelers)
        whole, rows = label._whole or (label, range(len(label)))
        if isinstance(rows, int):  # of batches that were stacked: it is one with rows itself
            whole, rows = label, range(len(label))
        part._whole = whole, rows[index]
        return part
    return label._values_on(CPU, Tensor.__getitem__)[index]


def _stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    labels = [label for label in tensors if isinstance(label, LazyLabel) and label._found() is None]
    if dim != 0 or len(labels) < len(tensors) or out is not None:
        return torch.stack([plain(label, torch.stack) for label in tensors], dim, out=out)
    widths = {shape_of(label)[-1] for label in labels}
    if len(widths) > 1:
        raise LabelError(f"one batch mixes labels of {' and '.join(map(str, sorted(widths)))} classes: load them apart")
    labelers = dict.fromkeys(labeler for label in labels for labeler in label._labelers)
    return LazyLabel.of(torch.stack([label._handles for label in labels]), widths.pop(), tuple(labelers))


def _rebuild(handles: Any, width: int) -> LazyLabel:
    return LazyLabel.of(torch.from_numpy(handles), width)


def _reduce(label: LazyLabel) -> Any:
    made = label._found()
    if made is not None:
        return reduce_tensor(made)  # type: ignore[no-untyped-call]
    return _rebuild, (label._handles.numpy(), shape_of(label)[-1])


LazyLabel.LAZY = {
    **Lazy.LAZY,
    Tensor.__repr__: _repr,
    Tensor.__format__: _repr,
    Tensor.__getitem__: _get,
    Tensor.to: _to,
    Tensor.cuda: _cuda,
    Tensor.pin_memory: lambda label, *_, **__: label,
    Tensor.is_pinned: partial(_memory_fact, Tensor.is_pinned),
    Tensor.is_shared: partial(_memory_fact, Tensor.is_shared),
    torch.stack: _stack,
}


def _collate(labels: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    return torch.stack(list(labels))  # where torch would ask for room in shared memory, which handles need not


default_collate_fn_map[LazyLabel] = _collate
# Between processes handles travel, not values; every other pickle goes through __reduce_ex__.
ForkingPickler.register(LazyLabel, _reduce)
