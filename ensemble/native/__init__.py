"""Kernels of our own in C, for what PyTorch is slow at; a room without which everything else still works."""
