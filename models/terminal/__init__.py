"""How commands speak with people: bars or lines of progress, and commands for them to type."""
