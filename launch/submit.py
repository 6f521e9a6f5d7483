"""`python -m launch.submit CONFIG --address URL [key=value ...]`: the short name, in this folder, of ensemble/launch/submit.py."""

from ensemble.launch.submit import start

if __name__ == "__main__":
    start()
