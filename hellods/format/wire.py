"""What the container is: every rule in order, each with its constants, and no logic.

Rules H are about the container and need no library to check; rules C are about what sections hold. Numbers are
little-endian. "Other" and "unknown" mean: not what this version of the format names.
"""

from typing import Final

# The prologue: signature, major, minor, header_length, file_length, SHA-256 of the header, eight bytes for later.
PROLOGUE: Final = "<8sHHIQ32s8s"
ALIGNMENT: Final = 64  # bytes of the prologue; header and sections are padded to a multiple of it

# H1  The file begins with the signature.
SIGNATURE: Final = b"\x89HELLO\r\n"

# H2  A reader refuses another major version. Of a higher minor version it ignores what it does not know.
MAJOR: Final = 0
MINOR: Final = 9

# H3  header_length is a multiple of 64, and neither 0 nor above the limit.
MAX_HEADER: Final = 1 << 20  # bytes

# H4  file_length is the length of the file.

# H5  The digest in the prologue is the SHA-256 of the header, padding included. It is the id of the whole content.

# H6  The last eight bytes of the prologue are zero.

# H7  The header is canonical JSON (RFC 8785), then spaces up to a multiple of 64. Keys are ASCII and differ; numbers
#     are integers within the limit, or decimals in strings; nothing is nested deeper than the limit.
MAX_INTEGER: Final = (1 << 53) - 1
MAX_DEPTH: Final = 32

# H8  `format` is "hello/MAJOR.MINOR", the version of the prologue.
FORMAT: Final = r"hello/(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})"

# H9  Every key of the schema stands (`license` may be missing), with a value of its type. Keys that begin with "x-" are
#     anyone's. Other keys are refused, unless the minor version is higher than the reader's.

# H10 Section names differ and match the pattern, and their number is limited.
MAX_SECTIONS: Final = 64
SECTION_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"

# H11 Of a section, no length is negative, the digest is lower-case hexadecimal, and `identity` changes no length.
SHA256: Final = r"[0-9a-f]{64}"

# H12 The required sections stand, and `backbone` if, and only if, `projector` has a `tower` that is not null. Known
#     ones are critical, but for the ancillary; the images stay as their codec made them, so that a reader reaches them
#     without zstd.
KNOWN: Final = ("images", "images.index", "targets", "projector", "probe", "backbone", "card")  # the order of writing
REQUIRED: Final = ("images", "images.index", "targets")
ANCILLARY: Final = ("probe", "card")
IDENTITY: Final = ("images", "images.index")

# H13 A reader refuses an unknown critical section, and skips an unknown ancillary one.

# H14 Sections follow the header in the order of their entries, each padded to a multiple of 64, and end the file.

# H15 Padding is zero.

# H16 `sha256` of a section is that of its bytes in the file, padding excluded.

# H17 There is at least one image, and no more, no larger and not more pixels than the limits.
MAX_IMAGES: Final = 1 << 24
MAX_SIDE: Final = 4096
MAX_PIXELS: Final = 16 << 30  # bytes of all images as uint8 RGB
# H18 `mean` and `std` have three numbers each, which float32 can divide by: those of `mean` no farther from zero than
#     the one limit, those of `std` no nearer to it than the other.
MOST_MEAN: Final = 1e6
LEAST_STD: Final = 1e-6

# H19 There is at least one class; names are not empty, and differ.

# H20 `images.index` has for each image the u32 length and the u32 CRC-32 of its stream, and the lengths add up to
#     `images`, which holds the streams end to end.
INDEX_ENTRY: Final = "<II"

# H21 The CRC-32 of an image is that of its stream.

# H22 `targets` has for each image the u32 number of its class.
TARGET: Final = "<u4"

# H23 `views` has 1 to 4096 pixels as its `size`, 0 < low <= high <= 1 as its `scale`, 1 to 16 as its `shuffle`, which
#     divides height and width of the images, and a `mix` that is known. Views are drawn by these as views/draw.py says.

# C1  A zstd section is shorter than its raw length, which is limited, and above 1 MiB in its ratio too.
MAX_RAW: Final = 1 << 30  # bytes
FREE_RAW: Final = 1 << 20  # bytes
MAX_RATIO: Final = 200

# C2  It is one zstd frame and nothing else, which declares the raw length and a window within the limit.
MAX_WINDOW: Final = 8 << 20  # bytes; what RFC 8878 asks every decoder to support

# C3  A stream is one whole image of the codec and of the size that the header names: RGB, not animated. A JPEG has at
#     most 64 scans: each costs a reader as much as the image, in a few bytes of the file.
MAX_SCANS: Final = 64

# C4  `projector`, `probe` and `backbone` are safetensors files: a header within the limit of H3, JSON within those of
#     H7 but for the spelling, known dtypes, data without holes or overlaps.
DTYPES: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),  # bytes of one number
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
MAX_RANK: Final = 8  # dimensions

# C5  `card` is UTF-8.

# C6  `backbone` has a limit of its own: images and labels weigh far less than a larger base model would.
MAX_BACKBONE: Final = 128 << 20  # bytes, decompressed

# C7  `projector` holds the tensors that its object in the header asks for on the base model that this names, or holds:
#     names, shapes and types fit, and numbers are finite. There is a description for each class, of at most 256
#     characters. A template has at most 128 parts of as many, and makes at most 131,072 texts of all classes.
#     `quick_gelu` is true where a layer of what `base_sha256` covers computes x * sigmoid(1.702 * x), which open_clip
#     has in place of GELU where it is told to, at the same digest; timm's networks have activations of their own. A
#     reader refuses a base model that computes with the other one.

# C8  `backbone` holds each float tensor NAME of the image tower that `projector.tower` describes, with `quick_gelu`,
#     as `tower.NAME`; and, if the head starts at texts, their embeddings as `texts`, a row for each class. They are
#     F16 where this holds each number of a tensor, else F32, and finite. `tower.sha256` is that over the tower's
#     tensors in F32, sorted by NAME: of each `NAME [shape]`, a line end, and the numbers. `tower` is data: no name in
#     it leads to a network, a file or code, and a reader makes no more weights of it than the section holds, but for a
#     constant. The attention of one image has at most 512 numbers for each of its pixels, and 2^28 in all.

# C9  `probe` holds, of each of its views, an image and an epoch as I64 `indices` and `epochs`, the SHA-256 of the view
#     as U8 `digest`, and one finite F32 number for each class as `logits`. Views are drawn by the archive's own rule
#     from the seed, in epochs below 2^31; there is at least one, and no more than the limit.
PROBE_SEED: Final = 0
MAX_VIEWS: Final = 64
