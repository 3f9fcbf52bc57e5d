"""Loops in C, loaded with ctypes where the install had a compiler."""
