"""What is handed out of a commit: `python -m requirements.release`, which `make release` is."""
