"""Doors to clusters and launchers by short names, for use in this folder; what is installed has them as ensemble.launch."""
