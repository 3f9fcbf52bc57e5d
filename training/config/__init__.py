"""What was asked of a run: its recipe, its folder."""
