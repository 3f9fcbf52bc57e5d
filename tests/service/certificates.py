"""Certificates that nobody else trusts, made by openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """A certificate in PEM, and its key."""

    certificate: Path
    key: Path


def make_pair(folder: Path, *, name: str = "own", password: str | None = None) -> Pair:
    """A self-signed certificate of localhost and 127.0.0.1."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    lock = ["-noenc"] if password is None else ["-passout", f"pass:{password}"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, *lock, *names, "-days", "2", *files], check=True, capture_output=True
    )
    return pair
