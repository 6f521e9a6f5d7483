"""Random numbers that belong to the images, not to the calls.

Images are counted from the first of their set and divided into chunks of 256. Every chunk, and in it every quantity that a
corruption draws ("noise", "angle", ...), has a generator of its own, whose address is (seed, corruption, level, chunk,
quantity). A generator gives its numbers image by image: the numbers of an image are the same whether its chunk is
whole or cut off behind it, is taken in one piece or in several, and whatever other quantities are drawn.
"""

from __future__ import annotations

import zlib

import numpy as np

from ensemble.types import DoubleArray, FloatArray

CHUNK = 256  # part of the address: another number would change every corrupted image


class Draws:
    """The random numbers of the images of one chunk, from the first on: each call goes on where the last one stopped.

    seed: at least 0. corruption: its full name. level: a whole number. chunk: which one, from 0 on.
    """

    def __init__(self, seed: int, corruption: str, level: int, chunk: int) -> None:
        self._seed = seed
        self._address = (_number(corruption), level, chunk)
        self._generators: dict[str, np.random.Generator] = {}

    def uniform(self, quantity: str, shape: tuple[int, ...]) -> DoubleArray:
        """Numbers in [0, 1); the first axis of the shape is that of the images."""
        return self._generator(quantity).random(shape)

    def uniform32(self, quantity: str, shape: tuple[int, ...]) -> FloatArray:
        """The same in single precision, where there are many."""
        return self._generator(quantity).random(shape, dtype=np.float32)

    def between(self, quantity: str, low: float, high: float, shape: tuple[int, ...]) -> DoubleArray:
        """Numbers in [low, high)."""
        return low + (high - low) * self.uniform(quantity, shape)

    def whole(self, quantity: str, low: int, high: int, shape: tuple[int, ...]) -> DoubleArray:
        """Whole numbers low, ..., high - 1, each as likely as the others."""
        return low + np.floor(self.uniform(quantity, shape) * (high - low))

    def signs(self, quantity: str, shape: tuple[int, ...]) -> DoubleArray:
        """-1 or 1, each with probability 1/2."""
        return np.where(self.uniform(quantity, shape) < 0.5, -1.0, 1.0)

    def normal(self, quantity: str, shape: tuple[int, ...]) -> DoubleArray:
        """Numbers of the standard normal distribution."""
        return self._generator(quantity).standard_normal(shape)

    def _generator(self, quantity: str) -> np.random.Generator:
        if quantity not in self._generators:
            address = np.random.SeedSequence(self._seed, spawn_key=(*self._address, _number(quantity)))
            self._generators[quantity] = np.random.Generator(np.random.PCG64(address))
        return self._generators[quantity]


def _number(text: str) -> int:
    """A number for a text that is the same everywhere and always, unlike `hash`."""
    return zlib.crc32(text.encode())
