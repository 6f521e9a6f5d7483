"""`accelerate launch ... -m launch.accelerate_run CONFIG [key=value ...]`: the short name, in this folder, of ensemble/launch/accelerate_run.py."""

from ensemble.launch.accelerate_run import start

if __name__ == "__main__":
    start()
