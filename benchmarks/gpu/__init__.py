"""What only a GPU can show, as parts that run one after another, each in a process and under a time limit of its own.

    python -m benchmarks.gpu.prepare .gpu-kit                      # where there is a network: wheels and MNIST for later
    python -m benchmarks.gpu --kit .gpu-kit --out gpu.json --budget-s 540     # on the machine with the card
    python -m benchmarks.gpu --dry-run                             # every part on the CPU with tiny sizes: does it work?

docs/gpu.md lists what each part decides. Results are on disk after every case of every part, as JSON and Markdown.
"""

from benchmarks.gpu.report import GOALS, table

__all__ = ["GOALS", "table"]
