"""Doors to clusters and launchers.

    ray job submit --address URL --working-dir . -- python -m ensemble.launch.ray_job CONFIG [key=value ...]
    ensemble submit CONFIG --address URL [key=value ...]    (also: python -m ensemble.launch.submit)
    accelerate launch --config_file configs/accelerate/cpu_2.yaml -m ensemble.launch.accelerate_run CONFIG [key=value ...]

docs/launching.md says more. No file here is named after a library: `launch/ray.py` would import itself.
"""
