"""The container: bytes to values and back; never torch."""
