"""What waits, who goes first, what is refused, what is kept."""
