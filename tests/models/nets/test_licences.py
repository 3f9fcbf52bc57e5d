"""What the licences of weights ask is said in words; open ones ask nothing beyond a name."""

import pytest

from models.nets.licences import licence_of, terms


@pytest.mark.parametrize(
    ("name", "licence", "asks"),
    [
        ("vit_small_patch14_reg4_dinov2.lvd142m", "apache-2.0", ""),
        ("vit_small_patch8_224.dino", "apache-2.0", ""),
        ("vit_small_patch16_dinov3.lvd1689m", "dinov3-license", "dinov3-license: Meta's own: it limits uses"),
        ("convnext_tiny.dinov3_lvd1689m", "dinov3-license", "dinov3-license: Meta's own"),
        ("vit_base_patch16_224.mae", "cc-by-nc-4.0", "cc-by-nc-4.0: no commercial use"),
        ("test_vit_of_nobody", "", ""),
    ],
)
def test_licences_of_weights(name: str, licence: str, asks: str) -> None:
    assert licence_of(name) == licence
    assert terms(name).startswith(asks)
    assert bool(terms(name)) == bool(asks)


def test_a_licence_of_a_kind_of_its_own_is_to_be_read() -> None:
    assert terms("mobileone_s0.apple_in1k").endswith("read it before you use or pass on what comes of it")
