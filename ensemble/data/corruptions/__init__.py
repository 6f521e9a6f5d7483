"""Test images made harder on purpose: noise, blur, weather and movement, to measure what a classifier is worth on shifted data.

    corrupted_NCHW = corrupt(images_NCHW, Corruption("gaussian_noise", 3), seed=0)

    for corruption in RECIPES["mnist_c"]:      # the 15 of MNIST-C
        corrupted_NCHW = corrupt(images_NCHW, corruption, seed=0)

RECIPES holds two published benchmarks, MNIST-C (Mu and Gilmer 2019) and CIFAR-10-C (Hendrycks and Dietterich 2019; without
frost, which needs photographs), with their parameters. NAMES are the corruptions of both, such as "mnist_c/fog"; a plain name
such as "fog" means CIFAR-10-C's where it has the corruption and MNIST-C's otherwise. "rotate" turns by any angle.

The images are made anew from the definitions, with random numbers of their own: a published file has the same
distribution, not the same bytes. Values are truncated to bytes, as by CIFAR-10-C's program; MNIST-C's files may have been
rounded. Importing this package loads neither torch nor scipy.
"""

from ensemble.data.corruptions.applying import corrupt
from ensemble.data.corruptions.draws import CHUNK
from ensemble.data.corruptions.recipes import NAMES, RECIPES, Corruption, problem_with

__all__ = ["CHUNK", "NAMES", "RECIPES", "Corruption", "corrupt", "problem_with"]
