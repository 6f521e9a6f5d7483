"""`python -m launch.submit CONFIG --address URL [key=value ...]`: the same as `ensemble submit`, by a short name in this folder."""

from ensemble.launch.submit import start

if __name__ == "__main__":
    start()
