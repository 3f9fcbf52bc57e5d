"""Other light is what its parameters say, and none leaves the image as it is."""

import numpy as np

from training.data.color_jitter import Photometric, color_jitter


def test_light() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(color_jitter(image, Photometric()), image)
    gray = color_jitter(image, Photometric(gray=True))
    assert (gray == gray[..., :1]).all()
    assert color_jitter(image, Photometric(blur=2.0)).std() < image.std() / 2
    assert color_jitter(image, Photometric(brightness=0.5)).mean() < image.mean() * 0.6
    red = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    green = color_jitter(red, Photometric(hue=1 / 3))[0, 0]
    assert green.argmax() == 1
    assert green[0] < 20
