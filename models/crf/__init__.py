"""The dense CRF: what it takes, ours, pydensecrf's, large photos in windows, and its solvers."""
