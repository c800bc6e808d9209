"""JSON with one spelling for each value (RFC 8785), less all that its parsers disagree on."""

import json
import re
from typing import Any, NoReturn

from hellods.format.wire import MAX_DEPTH, MAX_INTEGER

# Also matches a string without an end, lest each quote in it be tried again.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
BRACKET = re.compile(rb"[\[\]{}]")


def loads(data: bytes) -> Any:
    """Return what a JSON text holds: objects, lists, strings, integers, booleans and None.

    Raises:
        ValueError: bad UTF-8 or JSON, a repeated key or one that is not ASCII, a number that is no integer of 53 bits,
            half of a surrogate pair, or too deep nesting.
    """
    # Python's parser recurses, and how far it may is up to the process: so the depth is counted first.
    if _depth(data) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    value = json.loads(
        data.decode(), object_pairs_hook=_object, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
    )
    dumps(value)  # half of a surrogate pair has no UTF-8
    return value


def dumps(value: Any) -> bytes:
    """Return the canonical JSON of what `loads` returns.

    Python's own writer sorts ASCII keys, spells integers and escapes strings as RFC 8785 asks.

    Raises:
        ValueError: JSON has nothing for a value in it.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()
    except (TypeError, RecursionError) as cause:
        raise ValueError(f"not a JSON value: {cause}") from cause


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for bracket in BRACKET.findall(STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    for key in value:
        if not key.isascii():
            raise ValueError(f"key {key!a} is not ASCII")
    if len(value) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return value


def _integer(text: str) -> int:
    # Python refuses to convert thousands of digits, and other parsers round beyond 53 bits.
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"integer {text[:20]} is beyond 53 bits")
    return int(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"number {text[:20]} is no integer; decimals are strings")
