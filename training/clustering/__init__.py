"""Points to clusters."""
