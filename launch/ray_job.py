"""`ray job submit ... -- python -m launch.ray_job CONFIG [key=value ...]`: the short name, in this folder, of ensemble/launch/ray_job.py."""

from ensemble.launch.ray_job import start

if __name__ == "__main__":
    start()
