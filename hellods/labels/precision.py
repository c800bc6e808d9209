"""The precision that labels are made in, and how far they may lie from another machine's."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn

from hellods.labels.config import Precision

DTYPES: Final[dict[Precision, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Relative to the largest logit. hello-tiny in bf16 and fp16 on a CPU lies 8e-3 and 1e-3 from fp32; in fp32 on other
# processors and libraries it stays below 1e-5, and another activation function (QuickGELU for GELU) begins at 1e-2.
TOLERANCES: Final[dict[Precision, float]] = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}

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


def cast(network: nn.Module, precision: Precision) -> None:
    """Store the parameters of `network` in that precision, in place, so that it computes in it.

    BatchNorm keeps its own in float32, as torch's kernels take them: variances lose most when they are rounded.
    """
    for module in network.modules():
        if not isinstance(module, BATCH_NORMS):
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if value.is_floating_point():
                    value.data = value.data.to(DTYPES[precision])
