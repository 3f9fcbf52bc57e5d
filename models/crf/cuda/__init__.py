"""The dense CRF on CUDA: models.refine.refine for several photos at once.

    device = open_device()                      # available() tells why there is none
    labels = Refiner(device).refine(scores, codes, fitted, spec)
    [device.download(one) for one in labels]    # uint8 [H, W] each

Knows nothing of networks or requests, and imports cupy only when a device is opened.
"""

from models.crf.cuda.cupy_device import available, open_device
from models.crf.cuda.device import Device, DeviceArray
from models.crf.cuda.refiner import Refiner

__all__ = ["Device", "DeviceArray", "Refiner", "available", "open_device"]
