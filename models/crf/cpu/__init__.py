"""The dense CRF on the CPU, compiled by numba."""
