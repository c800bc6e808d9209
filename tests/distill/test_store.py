"""Images as a reader of an archive will have them."""

import pytest
import torch

from hellods.distill.store import as_stored
from hellods.format.codecs import decode


@pytest.mark.parametrize(("codec", "quality"), [("png", None), ("webp", None), ("jpeg", 30), ("avif", 30)])
def test_images_are_what_their_streams_decode_to(codec: str, quality: int | None) -> None:
    images = torch.randint(0, 256, (3, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    told: list[tuple[str, int, int]] = []
    streams, stored = as_stored(images, codec, quality, lambda *call: told.append(call))
    read = [torch.tensor(decode(stream, codec, 8, 12, "x")).permute(2, 0, 1) for stream in streams]
    assert torch.equal(stored, torch.stack(read))
    assert torch.equal(stored, images) == (quality is None)
    assert told == [("Encode", done, 3) for done in range(4)]
