"""Where the dense CRF runs for many requests: on a GPU, in processes, and the code it needs, compiled."""
