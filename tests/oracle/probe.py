# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the oracle's own Python: start vLLM's engine once for each folder, with random weights, each in a process of its own, and keep its log.

    probe.py SECONDS  <  [{"model": FOLDER, ... engine arguments ...}, ...]

The log of a case is FOLDER/log; a line with FOLDER is printed when it is complete. vLLM is imported once, for all.
"""

import json
import os
import signal
import sys
from pathlib import Path

from vllm import LLM
from vllm.model_executor.models import registry


def start(arguments: dict) -> None:
    log = os.open(Path(arguments["model"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    LLM(**arguments)


if __name__ == "__main__":
    seconds, cases = int(sys.argv[1]), json.load(sys.stdin)
    # Looking at a model's class takes a process of its own in vLLM, so that CUDA is not touched; here there is none, and it would import all again.
    registry._run_in_subprocess = lambda function: function()
    for case in cases:
        child = os.fork()
        if not child:
            signal.alarm(seconds)
            try:
                start(case)
            except BaseException as error:
                os.write(2, f"\n{type(error).__name__}: {error}\n".encode())
                os._exit(1)
            os._exit(0)
        os.waitpid(child, 0)
        print(case["model"], flush=True)
