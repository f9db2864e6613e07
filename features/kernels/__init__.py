"""Compiled kernels over bytes and arrays: the only room here that imports numba."""
