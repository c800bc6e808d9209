"""Sections come back as they went in, and never grow beyond what they say."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hellods.errors import FormatError
from hellods.format.header import Section
from hellods.format.sections import decode, encode

from .forge import frame


def compressed(stored: bytes, raw_length: int) -> Section:
    """The entry of a section whose bytes in the file are `stored`."""
    section, _ = encode("images", stored)  # which keeps them, under their digest
    return replace(section, name="x", encoding="zstd", raw_length=raw_length)


@given(st.binary(max_size=200), st.sampled_from(["images", "targets", "x-mine"]), st.integers(1, 300))
@settings(max_examples=50)
def test_content_comes_back(raw: bytes, name: str, times: int) -> None:
    section, stored = encode(name, raw * times)
    assert decode(section, stored, "x") == raw * times


def test_content_is_compressed_where_that_saves() -> None:
    saving, _ = encode("targets", bytes(1000))
    losing, _ = encode("targets", random.Random(0).randbytes(1000))
    assert (saving.encoding, losing.encoding) == ("zstd", "identity")


def test_images_are_never_compressed() -> None:
    assert encode("images.index", bytes(1000))[0].encoding == "identity"


def test_content_that_compresses_too_well_to_be_read_is_stored_plain() -> None:
    section, stored = encode("x-zeros", bytes(2 << 20))
    assert section.encoding == "identity"
    assert decode(section, stored, "x") == bytes(2 << 20)


def test_window_above_the_limit_is_refused() -> None:
    raw = random.Random(0).randbytes(1 << 14) * 600  # 9.8 MB
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=24, source_size=len(raw))
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=len(raw))
    stored = writer.compress(raw) + writer.flush()
    with pytest.raises(FormatError, match=r"window of \d+, expected .* at most 8388608 \[C2\]"):
        decode(compressed(stored, len(raw)), stored, "x")


LIMITED = """
import pathlib, resource, sys
from dataclasses import replace
import zstandard
from hellods.errors import FormatError
from hellods.format.sections import decode, encode

stored = pathlib.Path(sys.argv[1]).read_bytes()
section = replace(encode("images", stored)[0], name="x", encoding="zstd", raw_length=1 << 20)
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    decode(section, stored, "x")
except FormatError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits its memory by RLIMIT_AS")
@pytest.mark.parametrize("single", [True, False])
def test_frame_that_lies_about_its_size_costs_no_memory(single: bool, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(frame(1 << 20, 1 << 14, single))  # 2 GiB in 64 KiB, said to be 1 MiB
    result = subprocess.run([sys.executable, "-c", LIMITED, bomb], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[C2]\n")


@pytest.mark.parametrize("single", [True, False])
def test_forged_frame_of_its_declared_size_is_read(single: bool) -> None:
    stored = frame(1 << 20, 8, single)
    assert decode(compressed(stored, 1 << 20), stored, "x") == b"A" * (1 << 20)
