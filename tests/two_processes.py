"""Runs of `sft.py`, one after another, in the processes that `accelerate launch` starts on a machine without GPUs.

    accelerate launch --config_file CONFIG tests/two_processes.py RUNS.json

RUNS.json: a list of `small_training.train`'s arguments. `remove`: paths that the main process deletes before a run.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from litegpt.modeling_litegpt import modeling_litegpt
from tests.small_training import train


def shard_on_a_cpu() -> None:
    """Makes Accelerate shard over processes without a GPU, which it does by default on accelerators alone."""
    start = AcceleratorState.__init__

    def start_with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
        start(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = start_with_fsdp


if __name__ == "__main__":
    torch.set_num_threads(1)
    # So small that answers of one process take more chunks than those of the other.
    modeling_litegpt.LOSS_CHUNK_SIZE = 40
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shard_on_a_cpu()
    for run in json.loads(Path(sys.argv[1]).read_text()):
        if os.environ["RANK"] == "0":
            for path in run.pop("remove", []):
                shutil.rmtree(path)
        run.pop("remove", None)
        train(**run)
        PartialState().wait_for_everyone()
