"""What launchers start on pretended devices, whose votes are no probabilities, and which report when a process ends in the usual way.

accelerate launch -m launched_run CONFIG
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from small_training import no_numbers

from ensemble.launch.accelerate_run import start

if __name__ == "__main__":
    with no_numbers(), patch("os._exit", sys.exit):
        start()
