"""A trained network's clusters found."""
