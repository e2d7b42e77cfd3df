"""The tensors of a PyTorch file that holds other objects too, of which none is imported, built or run.

    tensors_only(Path("r50_mcc.tar"), "model")   # {"logit_scale": tensor(4.6), ...}

In: a file of `torch.save`, as an archive or as before PyTorch 1.6. Out: the named tensors under one of its keys, on
the CPU, memory-mapped where the file is an archive.

`torch.load(weights_only=True)` refuses a file for one foreign object. Here each becomes an `Ignored` one, whatever it
is: a pickle names classes and functions, and all but those that put tensors together are looked up as `Ignored`.
"""

import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

# All that is ever looked up by name, beside the types of storages, which torch looks up itself.
PARTS_OF_TENSORS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}


def tensors_only(path: Path, key: str) -> dict[str, torch.Tensor]:
    """The named tensors that a file has under `key`.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, of another format, or has something else than named tensors there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    options: dict[str, Any] = {"map_location": "cpu", "mmap": zipfile.is_zipfile(path)}
    try:
        try:
            found = torch.load(path, weights_only=True, **options)
        except pickle.UnpicklingError:
            # Only foreign objects, or damage, end here. Archives of TorchScript and of tar end below: for them torch
            # would not come to ask our unpickler.
            found = torch.load(path, weights_only=False, pickle_module=TENSORS_ONLY, **options)
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path}: is no whole file of PyTorch weights.") from error
    tensors = found.get(key) if isinstance(found, dict) else None
    if not isinstance(tensors, dict) or not tensors:
        raise ValueError(f"{path}: has no tensors under {key!r}.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{path}: {name} under {key!r} is no tensor.")
    return {name: tensor.detach() for name, tensor in tensors.items()}


class Ignored:
    """In place of a foreign object: takes whatever its class would be given, keeps nothing, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> "Ignored":
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def add(self, item: Any) -> None: ...


class TensorsOnlyUnpickler(pickle.Unpickler):
    """Knows `PARTS_OF_TENSORS`; any other name that a pickle gives is not imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PARTS_OF_TENSORS:
            return Ignored
        part = super().find_class(module, name)
        # A pickle may set attributes of what it is given: of torch's own function it must not.
        return part if isinstance(part, type) else lambda *values: part(*values)


def load(file: Any, **options: Any) -> Any:
    return TensorsOnlyUnpickler(file, **options).load()


# What `torch.load` wants as its `pickle_module`.
TENSORS_ONLY = SimpleNamespace(__name__=__name__, Unpickler=TensorsOnlyUnpickler, load=load)
