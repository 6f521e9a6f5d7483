"""Doors to clusters and launchers. Until they are here: the `ensemble` command, with compute.ray_address for a cluster."""
