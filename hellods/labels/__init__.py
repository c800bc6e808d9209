"""Label makers: uint8 images to class logits."""
