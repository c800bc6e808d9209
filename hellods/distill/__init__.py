"""Making an archive from real images."""
