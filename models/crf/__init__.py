"""The dense CRF: its parameters, our solver on the CPU and on the GPU, pydensecrf's, and large photos in windows."""
