"""What a student sees of an image: drawn as integers, rendered bit-equal on every device."""
