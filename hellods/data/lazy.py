"""Lazy: a tensor whose values are made when something needs them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hellods.device import CPU
from hellods.errors import HelloError

T = TypeVar("T", bound=Tensor)


class Lazy(Tensor):
    """A tensor on the CPU whose values are made by the first operation that needs them.

    Its facts, such as its shape, are known before. A kind of it says in `_values_on` how values are made, and in `LAZY`
    what else it answers without them. An operation in place makes the values first, and changes those.
    """

    LAZY: ClassVar[Mapping[Callable[..., Any], Callable[..., Any]]]
    _made: Tensor | None

    @classmethod
    def _new(cls, shape: Sequence[int], dtype: torch.dtype) -> Self:
        """Return one without values; in inference mode, one that autograd would not save."""
        lazy: Self = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=CPU)
        torch._C._set_throw_on_mutable_data_ptr(lazy)  # to read its address, which is none, raises; else it crashes
        lazy._made = None
        return lazy

    def _found(self) -> Tensor | None:
        """Return the values if they are made."""
        return self._made

    def _values_on(self, device: torch.device, operation: Callable[..., Any]) -> Tensor:
        """Return the values, on `device` where they can be made there, for an operation that needs them."""
        raise NotImplementedError

    def as_subclass(self, cls: type[T]) -> T:  # which does not go through __torch_function__
        return self._values_on(CPU, Tensor.as_subclass).as_subclass(cls)

    def __tensor_flatten__(self) -> Any:  # torch.compile would compute with what is in it: nothing
        raise HelloError("torch.compile does not look into lazy tensors: give it what .to(device) returns")

    @staticmethod
    def __tensor_unflatten__(*_: Any) -> Any:
        """Be there, for torch.compile asks a subclass for both methods."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in cls.LAZY and (func is torch.stack or (args and isinstance(args[0], cls))):
            return cls.LAZY[func](*args, **kwargs)
        args, kwargs = tree_map(partial(plain, operation=func), (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # What no function of torch's Python was asked for: torch.tensor, scripts, the transforms of torch.func.
        args, kwargs = tree_map(partial(plain, operation=func), (args, kwargs or {}))
        return func(*args, **kwargs)


def plain(value: Any, operation: Callable[..., Any]) -> Any:
    """Return the values of what is lazy, for an operation that needs them, and all else as it is."""
    return value._values_on(CPU, operation) if isinstance(value, Lazy) else value


def shape_of(lazy: Lazy) -> torch.Size:
    """Return the shape that it had from the first."""
    with torch._C.DisableTorchFunctionSubclass():
        return lazy.shape


def _itself(fact: Callable[..., Any], lazy: Lazy, *args: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return fact(lazy, *args)


def _fact(fact: Callable[..., Any], lazy: Lazy, *args: Any, **kwargs: Any) -> Any:
    made = lazy._found()
    with torch._C.DisableTorchFunctionSubclass():
        return fact(lazy if made is None else made, *args, **kwargs)


def _deepcopy(lazy: Lazy, memo: dict[int, Any]) -> Tensor:
    # Not by `tree_map`, which would look for what is lazy in all that was copied before.
    return copy.deepcopy(lazy._values_on(CPU, Tensor.__deepcopy__), memo)


def _asked(name: str) -> Callable[..., Any]:
    """Return what `__torch_function__` is given when this of a tensor is asked for."""
    found = getattr(Tensor, name)
    return found if callable(found) else found.__get__  # type: ignore[no-any-return]


# Where it is: on the CPU, wherever its values were asked for.
_PLACE = ("device", "is_cpu", "is_cuda", "is_meta", "is_mps")

# What all new tensors of a shape have in common. Values that are made may differ by now, and answer themselves.
_FACTS = (
    "__len__",
    "dim",
    "dtype",
    "element_size",
    "grad",
    "grad_fn",
    "is_complex",
    "is_contiguous",
    "is_floating_point",
    "is_leaf",
    "is_nested",
    "is_quantized",
    "is_sparse",
    "itemsize",
    "layout",
    "nbytes",
    "ndim",
    "numel",
    "requires_grad",
    "shape",
    "size",
    "stride",
)

Lazy.LAZY = {
    **{_asked(name): partial(_itself, _asked(name)) for name in _PLACE},
    **{_asked(name): partial(_fact, _asked(name)) for name in _FACTS},
    torch.is_complex: partial(_fact, torch.is_complex),
    torch.is_floating_point: partial(_fact, torch.is_floating_point),
    Tensor.__deepcopy__: _deepcopy,
}
