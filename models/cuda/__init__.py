"""The dense CRF and the labels on CUDA: what models/crf.py, refined.py and assign.py compute, several images at once.

    device = open_device()                      # available() tells why there is none
    refiner = Refiner(device)
    labels = refiner.refine_batch(probabilities, images)
    [device.download(one) for one in labels]    # uint8 [H, W] each

Knows nothing of networks or requests, and imports cupy only when a device is opened.
"""

from models.cuda.crf import Refiner
from models.cuda.device import Device, DeviceArray
from models.cuda.gpu import available, open_device

__all__ = ["Device", "DeviceArray", "Refiner", "available", "open_device"]
