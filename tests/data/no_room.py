"""A process that may write no more than some bytes, for tests of what happens where the cache has no room."""

from __future__ import annotations

import multiprocessing
import resource

from ensemble.config.data import DataConfig
from ensemble.data import load_dataset
from ensemble.data.mapped import place_of
from ensemble.errors import DataError


def read_without_room(config: DataConfig, limit: int) -> str:
    """What becomes of reading a data set where no file may have more than `limit` bytes: how it was read, or the error's text."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_read, args=(config, limit, answers))
    process.start()
    answer: str = answers.get(timeout=60)
    process.join()
    return answer


def _read(config: DataConfig, limit: int, answers: multiprocessing.Queue[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        data = load_dataset(config)
        told = any("cannot be kept for later starts" in remark.text for remark in data.account.remarks())
        answers.put(f"read {place_of(data.train_images_NCHW)} {told}")
    except DataError as error:
        answers.put(str(error))
