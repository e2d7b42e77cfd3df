"""A checkpoint's weights, tensor by tensor: files of limited size, and their index.

In: named tensors, one at a time. Out: `model-00001-of-00004.safetensors`, ... and `model.safetensors.index.json`, as
transformers writes them; no more than one file's tensors are in memory.

    writer = ShardWriter(folder, model, max_shard_bytes=bytes_of("2GB"), dtype=None)
    writer.add("model.language_model.norm.weight", tensor)
    writer.finish()
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from litegpt.common.files import give_usual_permissions
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.published_weights import LANGUAGE_MODEL

EMBEDDINGS = f"{LANGUAGE_MODEL}embed_tokens.weight"


class ShardWriter:
    """Collects tensors and writes a safetensors file whenever one is full, then the index, as transformers does."""

    def __init__(
        self,
        folder: Path,
        model: LiteGPTForConditionalGeneration,
        max_shard_bytes: int,
        dtype: torch.dtype | None,
    ):
        self.folder, self.max_shard_bytes, self.dtype = folder, max_shard_bytes, dtype
        # Names in files: for some towers the library's names in memory are others.
        weights = revert_weight_conversion(model, model.state_dict())
        self.expected = {name: tensor.shape for name, tensor in weights.items()}
        self.tensors: dict[str, torch.Tensor] = {}
        self.shard_of: dict[str, int] = {}
        self.language_model_dtype: torch.dtype | None = None
        self.shards = self.size = self.total_size = self.total_parameters = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        if name in self.shard_of:
            raise ValueError(f"{name}: two published tensors are this one")
        if self.dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(self.dtype)
        if self.tensors and self.size + tensor.nbytes > self.max_shard_bytes:
            self._write()
        self.tensors[name] = tensor.contiguous()
        self.size += tensor.nbytes
        self.shard_of[name] = self.shards
        if name == EMBEDDINGS:
            self.language_model_dtype = tensor.dtype
        self.total_parameters += tensor.numel()

    def finish(self) -> None:
        """Gives the files their names, which tell how many there are, and writes the index."""
        self._write()
        if self.shards == 1:
            (self.folder / "0.shard").rename(self.folder / "model.safetensors")
            return
        names = [f"model-{shard + 1:05}-of-{self.shards:05}.safetensors" for shard in range(self.shards)]
        for shard, name in enumerate(names):
            (self.folder / f"{shard}.shard").rename(self.folder / name)
        index = {
            "metadata": {"total_parameters": self.total_parameters, "total_size": self.total_size},
            "weight_map": {name: names[shard] for name, shard in self.shard_of.items()},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (self.folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    def _write(self) -> None:
        shard = self.folder / f"{self.shards}.shard"
        save_file(self.tensors, shard, metadata={"format": "pt"})
        give_usual_permissions(shard)
        self.total_size += self.size
        print(f"{len(self.shard_of)} of {len(self.expected)} tensors, {self.total_size / 1e9:.1f} GB", flush=True)
        self.shards, self.size, self.tensors = self.shards + 1, 0, {}


def bytes_of(size: str) -> int:
    """Bytes of a size such as "500MB" or "2GB" (decimal units, as transformers counts)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(KB|MB|GB)", size.upper())
    if match is None:
        raise ValueError(f"--max_shard_size {size}: is no size such as 500MB or 2GB")
    return int(float(match[1]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2]])
