"""Writes a network whose matrix products have 8-bit weights: python quantize.py SOURCE TARGET BITS

A script, run in a process of its own by `onnxruntime_int8.py`. Knows nothing of the rest.
"""

import logging
import sys


def main(source: str, target: str, bits: str) -> None:
    """Quantizes SOURCE, an ONNX file, into TARGET with weights of BITS (8 or 7), one scale a channel."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not any(node.op_type == "MatMul" for node in onnx.load(source).graph.node):
        sys.exit("this network has no matrix products (it is convolutional): nothing would get faster")

    logging.disable(logging.WARNING)  # it advises a preprocessing that the session does by itself
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=bits == "7",
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
