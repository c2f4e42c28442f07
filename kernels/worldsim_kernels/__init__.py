"""Kernels for GPUs, a folder an operation: each beside the same in plain torch, to which it is held."""
