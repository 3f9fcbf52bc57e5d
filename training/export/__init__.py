"""A trained network to a bundle."""
