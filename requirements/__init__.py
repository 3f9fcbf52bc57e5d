"""What is installed, to the byte: lock files of names, versions and sha256, and the commands that make, check and audit them."""
