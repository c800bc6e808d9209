"""The arithmetic that labels are made in, how many at once, and how far they may lie from another machine's."""

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from hellods.labels.config import Precision

T = TypeVar("T")

DTYPES: Final[dict[Precision, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Relative to the largest logit. hello-tiny in bf16 and fp16 on a CPU lies 8e-3 and 1e-3 from fp32; in fp32 on other
# processors and libraries it stays below 1e-5, and another activation function (QuickGELU for GELU) begins at 1e-2.
TOLERANCES: Final[dict[Precision, float]] = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}

# Pixels that a network answers at once. A CPU is fastest while no activation reaches the 32 MB from which the system
# gives fresh memory each time: a MobileNetV2's largest takes 29 MB for six images of 224 px. On two cores of a Xeon
# it takes 8.2 ms an image in sixes, 8.5 in eights, 9.3 in tens. A Vision Transformer's largest are a tenth of that, and
# more images share a pass over its weights. On a GPU it is what memory allows.
AT_ONCE: Final = {"cpu": 6 * 224**2, "cuda": 1 << 25}
TOKENS_AT_ONCE: Final = AT_ONCE | {"cpu": 32 * 224**2}

BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

LOCK = threading.RLock()  # torch's settings hold for all threads, so one at a time sets them and sets them back


def _unlock() -> None:
    global LOCK
    LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):  # a process that is forked has no thread that would release it
    os.register_at_fork(after_in_child=_unlock)


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute float32 in float32, whatever the caller chose for training; one thread at a time.

    TF32, which cuDNN takes for convolutions unless told otherwise, has a thousandth of an error in every product.
    """
    every: Any = torch.backends  # of which torch states no types
    library, matmul = every.mkldnn, every.mkldnn.matmul
    if device.type == "cuda":
        library, matmul = every.cudnn, every.cuda.matmul
    changed = []
    with LOCK:
        try:
            # The general first: a setting that follows it by then is left alone, or it would follow no more.
            for setting in (every, library, library.conv, matmul):
                if setting.fp32_precision != "ieee":
                    changed.append((setting, setting.fp32_precision))
                    setting.fp32_precision = "ieee"
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            for setting, value in reversed(changed):
                setting.fp32_precision = value


def in_own_thread(work: Callable[[torch.device], T], device: torch.device) -> T:
    """Return `work(device)`, done in a thread of its own.

    What the first label happens to stand in, torch keeps by thread: autocast, inference mode, a default device, the
    transforms of torch.func, the hooks of a checkpoint. What is kept must depend on none of them.
    """
    done = Future[T]()

    def run() -> None:
        try:
            done.set_result(work(device))
        except BaseException as cause:
            done.set_exception(cause)

    # No pool's, which Ctrl-C and the end of the program would wait for.
    threading.Thread(target=run, daemon=True).start()
    return done.result()


def cast(network: nn.Module, precision: Precision) -> None:
    """Store the parameters of `network` in that precision, in place, so that it computes in it.

    BatchNorm keeps its own in float32, as torch's kernels take them: variances lose most when they are rounded.
    """
    for module in network.modules():
        if not isinstance(module, BATCH_NORMS):
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if value.is_floating_point():
                    value.data = value.data.to(DTYPES[precision])


def in_parts(answer: Callable[[Tensor], Tensor], images: Tensor, network: nn.Module) -> Tensor:
    """Return `answer(images)`, (B, ...), for images (B, 3, H, W), of few at a time, unless gradients are wanted.

    Args:
        answer: asks the network.
        images: any number.
        network: says how many at a time.
    """
    if torch.is_grad_enabled() or images.device.type not in AT_ONCE:
        return answer(images)
    spatial = sum(isinstance(module, nn.Conv2d) for module in network.modules()) > 1  # else its only one makes tokens
    limit = (AT_ONCE if spatial else TOKENS_AT_ONCE)[images.device.type]
    if torch.is_autocast_enabled(images.device.type):
        limit = max(AT_ONCE.values())  # it casts the weights anew for every part
    count, _, height, width = images.shape
    parts = max(1, math.ceil(count / max(1, limit // (height * width))))
    while True:
        try:
            return torch.cat([answer(part) for part in images.tensor_split(parts)])  # all of one size, or one less
        except torch.OutOfMemoryError:  # of a GPU, which has other things to hold
            if parts >= count:
                raise
            parts = min(2 * parts, count)
