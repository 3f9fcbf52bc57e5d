"""Commands that work without a server: `tessera segment`."""
