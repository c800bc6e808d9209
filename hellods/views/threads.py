"""in_threads(): work of many short steps, shared out."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def in_threads(work: Callable[[range], None], count: int) -> None:
    """Call `work` for parts of range(count), in as many threads as torch has.

    For work of many short steps without the GIL: torch's own threads would wait for each other after every one.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        work(range(count))
    else:
        parts = (range(count * n // threads, count * (n + 1) // threads) for n in range(threads))
        list(_pool(os.getpid(), threads).map(work, parts))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return threads that are kept: to start them took a seventh of a batch's time. A forked process has none."""
    return ThreadPoolExecutor(threads, thread_name_prefix="hellods")
