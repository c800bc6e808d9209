"""Where torch computes: the device of a name, what is said of it, how tensors get there, and what time it takes."""

import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import torch
import torch.distributed
from torch import Tensor

from hellods.errors import OptionError

CPU: Final = torch.device("cpu")


def get_device(device: str) -> torch.device:
    """Return the device of that name.

    Raises:
        OptionError: this machine has none, or it has no float64, which views need.
    """
    try:
        value = torch.zeros(1, device=device)
        value.item()  # which `meta` cannot
    except (RuntimeError, AssertionError, NotImplementedError) as cause:  # a build of torch without CUDA asserts
        raise OptionError(f"device {device!r} cannot be used here: {str(cause).splitlines()[0]}") from cause
    if compute_device(value.device) != value.device:
        raise OptionError(f"device {device!r} cannot be used here: it has no float64; choose cpu")
    return value.device


def compute_device(device: torch.device) -> torch.device:
    """Return where views and labels for `device` are made: there, or on the CPU for Apple's GPUs.

    These have no float64, in which the weights of a view are found.
    """
    return CPU if device.type == "mps" else device


class Clock:
    """Seconds by what they were spent on, a GPU's own work among them; `with clock("labels"): …`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def now(self) -> float:
        """Return the seconds since some moment, when the device has done what it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


def rank_and_world_size() -> tuple[int, int]:
    """Return the number of this process in the group of torch.distributed, and how many it has; 0 and 1 without."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def describe_device(device: torch.device) -> str:
    """Return what the bytes depend on beside the inputs: the GPU, or the number of threads and whether bf16 is used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with_bf16 = " with bfloat16" if training_dtype(device) == torch.bfloat16 else ""
    return f"CPU, {torch.get_num_threads()} threads{with_bf16}"


def processor() -> str:
    """Return the processor's name where the system tells it, else the machine type."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@contextmanager
def float32_on_cpu() -> Iterator[None]:
    """Create tensors as torch does unless told otherwise, whatever its default dtype and device are now."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with nullcontext() if torch.get_default_device() == CPU else CPU:  # the mode costs each call of torch its time
            yield
    finally:
        torch.set_default_dtype(before)


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Return `values` on `device`. From the host to a GPU they go beside its work, and nobody waits for that."""
    if values.is_cpu and torch.device(device).type == "cuda":
        return values.contiguous().pin_memory().to(device, non_blocking=True)
    return values.to(device)


def training_dtype(device: torch.device | str) -> torch.dtype:
    """Return what forward passes of a training compute in: bfloat16 where the device has it in hardware, else float32.

    A CPU that has it trains a ConvNet-3 or a ResNet-18 twice as fast, and a projector as well as in float32
    (tests/benchmarks/LOG.md).
    """
    device = torch.device(device)
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has = getattr(torch.cpu, "get_capabilities", dict[str, bool])()  # older torch does not say
        fast = device.type == "cpu" and (has.get("avx512_bf16", False) or has.get("amx_bf16", False))
    return torch.bfloat16 if fast else torch.float32
