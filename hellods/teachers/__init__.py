"""Networks that know the classes: given, published, or trained on real images."""
