# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the oracle's own Python: start vLLM's engine on a folder with only a config.json, with random weights, and end. What matters is its log."""

import json
import sys

from vllm import LLM

if __name__ == "__main__":
    LLM(**json.loads(sys.argv[1]))
