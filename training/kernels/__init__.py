"""Compiled kernels over arrays: the only room here that imports numba."""
