"""What a training step frees is there for the next one."""

import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
from resource import RUSAGE_SELF, getrusage
from hellods_cli.malloc import reuse_memory

def faults():
    before = getrusage(RUSAGE_SELF).ru_minflt
    b"x" * (1 << 26)
    return getrusage(RUSAGE_SELF).ru_minflt - before

found = [faults(), faults()]
reuse_memory()
print(*found, faults(), faults())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="its C library is not glibc"
)
def test_large_memory_that_is_freed_costs_no_page_faults_the_next_time() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], check=True, stdout=subprocess.PIPE, text=True)
    _, second, _, fourth = map(int, run.stdout.split())
    assert second > 10
    assert fourth < second / 10
