"""Write spec/vectors, files that every reader accepts and files that break one rule each; and tables of the text.

    python -m tests.format.vectors

`valid/digits.hello` is made by `hellods build digits --images-per-class 1 --preset fast`. Image and zstd encoders
change their bytes between releases, so those that are committed stay until the format changes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hellods.format import wire

from .forge import HEADER, PIXELS, forge, images, stream
from .test_rules import BROKEN, SPEC, nested

VECTORS = SPEC.parent / "vectors"
LARGEST = 1 << 16  # bytes; a larger one is for this project's own tests


def valid() -> dict[str, bytes]:
    """Return the bytes of files that are as they must be, by what each has of its own; none makes labels."""

    def of(codec: str = "png", sections: Mapping[str, bytes] | None = None, **values: Any) -> bytes:
        def edit(header: dict[str, Any]) -> None:
            header["images"]["codec"] = codec
            header.update({"projector": None, **values})

        own = images([stream(pixels, codec) for pixels in PIXELS])
        minor = int(values.get("format", "hello/0.9").rpartition(".")[2])
        return forge(edit, sections={**own, "projector": None, **(sections or {})}, minor=minor)

    return {
        "three": of(),
        **{f"three-{codec}": of(codec) for codec in ("jpeg", "webp", "avif")},
        "an-unknown-ancillary-section": of(sections={"x-notes": b"mine"}),
        "an-unknown-key-of-a-newer-minor": of(format="hello/0.10", color="red"),
        "a-key-of-anyone": of(**{"x-color": "red"}),
        "no-license": forge(lambda h: (h.pop("license"), h.update(projector=None)), sections={"projector": None}),
        "nested-32-deep": of(source=nested(30)),
        "integers-of-53-bits": of(metrics={"most": (1 << 53) - 1, "least": 1 - (1 << 53)}),
        "decimals-next-to-a-limit": of(
            images={**HEADER["images"], "mean": ["1000000.00000000000001", "0", "-1000000"], "std": ["0.000001"] * 3}
        ),
        "escapes": of(name='"\\\b\f\n\r\t\u001f\u007f\u2028/ \U0001f600'),
    }


def broken() -> dict[str, bytes]:
    """Return the bytes of files that break a rule, by its number and what is wrong."""
    made = {f"{rule}-{re.sub('[^a-z0-9]+', '-', what.lower())}": make() for rule, what, make in BROKEN}
    return {name: data for name, data in made.items() if len(data) <= LARGEST}


def limits() -> str:
    """Return a row for each number and pattern of wire.py."""
    rows, rule = ["| name | value | rule |", "| --- | --- | --- |"], ""
    for line in Path(wire.__file__).read_text().splitlines():
        found = re.match(r"([A-Z0-9_]+): Final = ", line)
        rule = (re.search(r"# ([HC]\d+)", line) or ["", rule])[1]
        value = getattr(wire, found[1]) if found else None
        if rule and isinstance(value, (int, float)):
            rows.append(f"| {found[1]} | {value:,.{0 if value >= 1 or not value else 6}f} | {rule} |")
        elif rule and isinstance(value, str) and found[1] in ("FORMAT", "SECTION_NAME", "SHA256"):
            escaped = value.replace("|", "\\|")
            rows.append(f"| {found[1]} | `{escaped}` | {rule} |")
    rows.append(f"| DTYPES | {', '.join(f'{name} {size}' for name, size in wire.DTYPES.items())} bytes | C4 |")
    return "\n".join(rows)


def hexdump(data: bytes) -> str:
    """Return 16 bytes a line, as numbers and as text."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' ')}  {text}")
    return "\n".join(["```", *lines, "```"])


def written(text: str) -> str:
    """Return the specification with its tables and its dump made anew."""
    start = (VECTORS / "valid" / "three.hello").read_bytes()[:160]
    for name, block in (("hexdump", hexdump(start)), ("limits", limits())):
        text = re.sub(
            f"(<!-- {name} -->\n).*?(<!-- end of {name} -->)",
            lambda m, b=block: f"{m[1]}{b}\n{m[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    for folder, files in (("valid", valid()), ("broken", broken())):
        for name, data in files.items():
            (VECTORS / folder / f"{name}.hello").write_bytes(data)
    SPEC.write_text(written(SPEC.read_text(encoding="utf-8")), encoding="utf-8")
