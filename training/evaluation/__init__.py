"""What a bundle is worth against labels: measured here, after training, and nowhere else.

Knows nothing of how a bundle was made: an ONNX graph, images and label maps in; scores and curves out.
"""
