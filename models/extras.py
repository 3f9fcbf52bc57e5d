"""What brings the packages that not every environment has: the extras of pyproject.toml, as people type them.

Knows nothing of what the packages are used for.
"""

_IN_CHECKOUT = {"": "make serve", "cpu": "make serve", "gpu": "make serve", "training": "make train DATA=photos",
                "crf": "make oracle"}  # fmt: skip


def pip(extra: str) -> str:
    """The command that installs an extra into the environment at hand; `` what every environment needs."""
    return f"pip install 'tessera-segmentation{f'[{extra}]' if extra else ''}'"


def brings(extra: str) -> str:
    """The same, and what a checkout's environment is made with."""
    return f"{pip(extra)}, in a checkout {_IN_CHECKOUT.get(extra, f'make serve EXTRAS={extra}')}"
