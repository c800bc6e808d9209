"""The numbers of the format, each with the rule of spec/hello-0.9.md that it belongs to; no logic."""

from typing import Final

# The first 64 bytes: signature, major, minor, header_length, file_length, digest, eight bytes that are zero.
PROLOGUE: Final = "<8sHHIQ32s8s"
ALIGNMENT: Final = 64  # bytes of the prologue; header and sections are padded to a multiple of it
SIGNATURE: Final = b"\x89HELLO\r\n"  # H1
MAJOR: Final = 0  # H2
MINOR: Final = 9
MAX_HEADER: Final = 1 << 20  # H3, bytes

MAX_INTEGER: Final = (1 << 53) - 1  # H7
MAX_DEPTH: Final = 32
FORMAT: Final = r"hello/(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})"  # H8

MAX_SECTIONS: Final = 64  # H10
SECTION_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
SHA256: Final = r"[0-9a-f]{64}"  # H11
KNOWN: Final = ("images", "images.index", "targets", "projector", "probe", "backbone", "card")  # the order of writing
REQUIRED: Final = ("images", "images.index", "targets")  # H12
ANCILLARY: Final = ("probe", "card")
IDENTITY: Final = ("images", "images.index")  # so that a reader reaches the images without zstd

MAX_IMAGES: Final = 1 << 24  # H17
MAX_SIDE: Final = 4096  # pixels
MAX_PIXELS: Final = 16 << 30  # bytes of all images as uint8 RGB
MOST_MEAN: Final = 1e6  # H18
LEAST_STD: Final = 1e-6  # which float32 can divide by
INDEX_ENTRY: Final = "<II"  # H20
TARGET: Final = "<u4"  # H22

MAX_RAW: Final = 1 << 30  # C1, bytes
FREE_RAW: Final = 1 << 20  # bytes
MAX_RATIO: Final = 200
MAX_WINDOW: Final = 8 << 20  # C2, bytes; what RFC 8878 asks every decoder to support
MAX_SCANS: Final = 64  # C3
DTYPES: Final = {  # C4
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),  # bytes of one number
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
MAX_RANK: Final = 8  # dimensions
MAX_BACKBONE: Final = 128 << 20  # C6, bytes, decompressed
PROBE_SEED: Final = 0  # C9
MAX_VIEWS: Final = 64
