"""timm's plain ViTs with fewer blocks than they have: the others are like them, and most of the time it takes."""

import functools

import pytest
import timm


def few_blocks(patch: pytest.MonkeyPatch, depth: int) -> None:
    """From now on `timm.create_model` makes ViTs of so many blocks; other networks as they are."""
    create = timm.create_model

    @functools.wraps(create)
    def shallow(name: str, **options: object) -> object:
        return create(name, **({"depth": depth} | options if name.startswith(("vit_", "deit_")) else options))

    patch.setattr(timm, "create_model", shallow)
