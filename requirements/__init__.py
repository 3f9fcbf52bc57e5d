"""What is installed, to the byte: lock files of versions and sha256, and the commands that make and audit them."""
