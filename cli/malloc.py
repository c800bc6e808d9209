"""reuse_memory(): large tensors of one training step lie where those of the step before did."""

import ctypes
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1  # of mallopt(3)
M_MMAP_MAX: Final = -4


def reuse_memory() -> None:
    """Have the C library keep what is freed, for what comes next; without effect where it is not glibc.

    glibc gives each block above 32 MB back to the system when it is freed, and has the next one page by page, which
    takes a quarter of the time of a ConvNet's training step on a CPU (tests/benchmarks/LOG.md).
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
