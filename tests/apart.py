"""A device of its own that computes on the CPU, so that tests find what a GPU would refuse: tensors left behind.

What a GPU computes otherwise, and when, only one can tell: tests that are marked `gpu`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME: Final = "apart"
KEY: Final = "PrivateUse1"  # by which torch dispatches for a device that it does not have itself


class Apart(Tensor):
    """A tensor whose values are on the CPU, and whose device is not."""

    held: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "Apart":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=f"{NAME}:0"
        )
        made.held = values
        return made  # type: ignore[no-any-return]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{NAME}: {self.held!r}"

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = Apart(self.held.clone())
        return nn.Parameter(copy, self.requires_grad) if isinstance(self, nn.Parameter) else copy

    @classmethod
    def __torch_dispatch__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if func is torch.ops.aten._to_copy.default:
            there = torch.device(kwargs.pop("device", None) or tensors[0].device).type == NAME
            copy = func(_values(tensors[0]), **kwargs)
            return cls(copy) if there else copy
        if func is torch.ops.aten.copy_.default:
            _values(args[0]).copy_(_values(args[1]))
            return args[0]
        indexing = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
        for value in tensors:
            if not isinstance(value, cls) and value.ndim and not (indexing and value is not args[0]):
                raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {NAME} and cpu")
        known = {id(value.held): value for value in tensors if isinstance(value, cls)}
        kwargs |= {"device": "cpu"} if "device" in kwargs else {}

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return known[id(value)] if id(value) in known else cls(value)

        return tree_map(wrapped, func(*tree_map(_values, args), **tree_map(_values, kwargs)))


def _values(value: Any) -> Any:
    return value.held if isinstance(value, Apart) else value


class _Hook(torch._C._acc.PrivateUse1Hooks):  # type: ignore[misc, name-defined]
    """Says that no accelerator is there, or torch and frameworks would choose it."""

    def is_available(self) -> bool:
        return False

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


class _Module(backend_registration._DummyBackendModule):
    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0  # whose random numbers are to be kept

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _empty(size: Sequence[int], *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    return Apart(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format, device="cpu"))


def _empty_strided(size: Sequence[int], stride: Sequence[int], *, dtype: Any = None, **_: Any) -> Tensor:
    return Apart(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _values(target).copy_(_values(source))
    return target


def register() -> None:
    """Let torch know the device, for good."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module(), _Hook())
    torch.library.impl("aten::empty.memory_format", KEY)(_empty)
    torch.library.impl("aten::empty_strided", KEY)(_empty_strided)
    torch.library.impl("aten::_copy_from", KEY)(_copy_from)
