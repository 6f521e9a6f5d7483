"""Commands of the program in processes that have imported it already.

A process of Python that trains spends 3 to 5 s of processor time on its imports before it does anything. Most tests that
run a command want its exit code, what it prints and what it leaves; only some are about the process itself (imports,
start-up, signals at any moment). For the former one process imports torch and this package once (`server.py`) and forks a
child for each command, which has the working directory, environment, streams and arguments that it would have had, runs
the same code, and ends as any interpreter does.

`run` and `Popen` are those of `subprocess`, for commands of this interpreter: `[sys.executable, "-m", MODULE, ...]`,
`[sys.executable, "-c", CODE, ...]`, `[sys.executable, FILE, ...]` or a script of this environment such as `ensemble`. What
they cannot take is started as it would be otherwise. `search_path` is a folder for PATH with such a `python` and
`ensemble`, for what is typed into a shell.

A child differs from a process of its own in that its parent is not the one that asked for it (so that `os.times` does
not count it), and in that it shares the seed of Python's hashes with other children.
"""

from tests.preloaded.client import Popen, run, search_path

__all__ = ["Popen", "run", "search_path"]
