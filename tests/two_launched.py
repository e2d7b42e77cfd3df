"""A program in the two processes that `accelerate launch` starts on a machine without GPUs.

launch_two(pretrain_ecamp, "--config", config)    # what it prints
"""

import os
import subprocess
import sys
from types import ModuleType
from typing import Any

from litegpt.train_scripts.memory_per_gpu import FSDP2


def launch_two(program: ModuleType, *words: Any, config: str = "ddp.yaml") -> str:
    """What `program` prints, given `words`, as `train_scripts/accelerate/CONFIG` says, but in float32."""
    options = ["--config_file", FSDP2.with_name(config), "--num_processes", 2, "--mixed_precision", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, os.path.abspath(program.__file__), *words]
    process = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr[-5000:]
    return process.stdout
