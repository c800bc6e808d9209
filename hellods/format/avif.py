"""check_avif(): the frame in an AVIF is no larger than the image that its container promises.

libavif decodes the frame, however large, and scales it. Boxes are those of ISO/IEC 14496-12, units and sequence headers
those of the AV1 specification, sections 5.3 to 5.5.
"""

from collections.abc import Iterator

SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # types of units
STILL = (b"ftyp", b"meta", b"mdat")  # the boxes of an image that is not a film


def check_avif(stream: bytes, height: int, width: int) -> None:
    """Check that an AVIF is one item with one AV1 frame of that size.

    Raises:
        ValueError, LookupError: it is not.
    """
    frames = 0
    for kind, content in _units(_item(stream)):
        if kind == SEQUENCE_HEADER and (found := _size(content)) != (height, width):
            raise ValueError(f"its frame is of {found[0]}x{found[1]}")
        frames += kind in (FRAME_HEADER, FRAME)
    if frames != 1:
        raise ValueError(f"it has {frames} frames")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the content of each box; those of 4 GB and more are none."""
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4])
        if not 8 <= length <= len(data) - position:
            raise ValueError(f"a box has {length} bytes")
        yield data[position + 4 : position + 8], data[position + 8 : position + length]
        position += length


def _item(stream: bytes) -> bytes:
    """Return the bytes of the only item, which must lie in one piece."""
    boxes = list(_boxes(stream))
    if tuple(kind for kind, _ in boxes) != STILL:
        raise ValueError("it is not one still picture")
    (location,) = (content for kind, content in _boxes(boxes[1][1][4:]) if kind == b"iloc")  # after version and flags
    version, sizes = location[0], int.from_bytes(location[4:6])
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2

    position = 6

    def number(size: int) -> int:
        nonlocal position
        position += size
        if position > len(location):
            raise ValueError("it is truncated")
        return int.from_bytes(location[position - size : position])

    if version > 2 or number(wide) != 1:
        raise ValueError("it has not one item")
    number(wide)
    if version and number(2) & 15:
        raise ValueError("its item is not in the file")
    number(2)
    base = number(base_size)
    if number(2) != 1:
        raise ValueError("its item is in parts")
    if version:
        number(index_size)
    start = base + number(offset_size)
    return stream[start : start + number(length_size)]


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each open bitstream unit."""
    position = 0
    while position < len(data):
        header = data[position]
        position += 2 if header & 4 else 1
        length = len(data) - position
        if header & 2:  # it states its length, in groups of seven bits
            length = shift = 0
            while True:
                group = data[position]
                position += 1
                length |= (group & 127) << shift
                shift += 7
                if group < 128:
                    break
        yield header >> 3 & 15, data[position : position + length]
        position += length


def _size(header: bytes) -> tuple[int, int]:
    """Return the largest height and width of a frame that a sequence header allows."""
    header = header[:16]  # and what may follow has no part in it
    bits, position = int.from_bytes(header), 8 * len(header)

    def take(count: int) -> int:
        nonlocal position
        position -= count
        if position < 0:
            raise ValueError("its sequence header is truncated")
        return bits >> position & (1 << count) - 1

    take(4)  # profile, still picture
    if take(1):  # a reduced header, of a still picture
        take(5)
    else:
        if take(7):
            raise ValueError("it is not one still picture")  # which has no timing, delay, or second operating point
        take(12)
        if take(5) > 7:
            take(1)
    wide, high = take(4) + 1, take(4) + 1
    width = take(wide) + 1
    return take(high) + 1, width
