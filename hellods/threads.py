"""in_threads(): work of many short steps, shared out; in_own_thread(): work that no setting of the caller touches."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")


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
