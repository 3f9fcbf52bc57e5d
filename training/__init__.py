"""How a folder of images becomes a bundle, and what that is worth."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is imported, which is later
