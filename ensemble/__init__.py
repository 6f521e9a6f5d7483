"""Train ensembles of image classifiers and judge, with intervals, whether they beat the single model.

Importing this package loads none of torch, ray, accelerate or wandb: the command line stays quick and the
statistics run on machines without them.
"""

__version__ = "0.1.0"
