"""The dense CRF and the labels on CUDA: models/crf/dense.py, refine.py and assign.py, several images at once.

    device = open_device()                      # available() tells why there is none
    refiner = Refiner(device)
    labels = refiner.refine_batch(probabilities, images)
    [device.download(one) for one in labels]    # uint8 [H, W] each

Knows nothing of networks or requests, and imports cupy only when a device is opened.
"""

from models.crf.cuda.cupy_device import available, open_device
from models.crf.cuda.device import Device, DeviceArray
from models.crf.cuda.refiner import Refiner

__all__ = ["Device", "DeviceArray", "Refiner", "available", "open_device"]
