"""The bundles that serve: loaded, verified, swapped, and the names people gave their clusters."""
