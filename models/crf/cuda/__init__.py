"""The dense CRF on CUDA: models/crf/dense.py and models/refine.py for several images at once.

    device = open_device()                      # available() tells why there is none
    refiner = Refiner(device)
    labels, _ = refiner.refine_batch(probabilities, images)
    [device.download(one) for one in labels]    # uint8 [H, W] each

Knows nothing of networks or requests, and imports cupy only when a device is opened.
"""

from models.crf.cuda.cupy_device import available, open_device
from models.crf.cuda.device import Device, DeviceArray
from models.crf.cuda.refiner import Refiner

__all__ = ["Device", "DeviceArray", "Refiner", "available", "open_device"]
