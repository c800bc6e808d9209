"""Trainings use bfloat16 where the hardware has it; threads and a clock count their work once."""

from collections.abc import Iterator, Mapping
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.queues import SimpleQueue

import pytest
import torch

from hellods.device import Clock, describe_device, in_threads, training_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "dtype", "said"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32, "threads"),
        ({"avx512_bf16": True}, torch.bfloat16, "threads with bfloat16"),
        ({"amx_bf16": True}, torch.bfloat16, "threads with bfloat16"),
        ({"neon": True}, torch.float32, "threads"),
    ],
)
def test_cpu_trains_in_bfloat16_if_it_has_that(
    monkeypatch: pytest.MonkeyPatch, capabilities: Mapping[str, bool], dtype: torch.dtype, said: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert training_dtype(CPU) == training_dtype("cpu") == dtype
    assert describe_device(CPU).endswith(said)


def test_torch_that_does_not_say_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert training_dtype(CPU) == torch.float32


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_work_in_threads_is_done_once(threads: int, count: int) -> None:
    torch.set_num_threads(threads)
    done: list[int] = []
    in_threads(done.extend, count)
    assert sorted(done) == list(range(count))


@pytest.mark.usefixtures("_threads")
def test_fault_in_a_thread_is_raised() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda part: print(1 / part.start), 4)  # the first begins at 0


def _in_a_child(answers: "SimpleQueue[list[int]]") -> None:
    done: list[int] = []
    in_threads(done.extend, 7)
    answers.put(sorted(done))


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.usefixtures("_threads")
def test_forked_process_has_threads_of_its_own() -> None:
    torch.set_num_threads(2)
    in_threads(lambda part: None, 7)
    context = get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(answers,))
    child.start()
    child.join(30)
    child.kill()
    assert child.exitcode == 0
    assert answers.get() == list(range(7))


def test_clock_adds_up_what_is_spent_under_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(torch.device("cpu"))
    for name, spent in (("views", 2.0), ("labels", 0.5), ("views", 1.0)):
        with clock(name):
            now += spent
    assert clock.seconds == {"views": 3.0, "labels": 0.5}
