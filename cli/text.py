"""What the commands say, as plain text."""


def escape(text: str) -> str:
    """Return `text` with everything that is not printable spelled out, so that a file cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
