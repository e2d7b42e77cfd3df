"""Nothing that a file of weights names is imported, built or run, whatever it is."""

import functools
import io
import os
import pickle
import tarfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from litegpt.modeling_towers.tensors_only import Ignored, tensors_only


class Reduced:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments, state=None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call

    def __call__(self) -> None:
        """Only what can be called is pickled as what shall be called."""


def traps(file: str) -> dict[str, Reduced]:
    """Objects that make `file` if they are unpickled as a pickle asks."""
    code = f"open({file!r}, 'w')"
    return {
        "a command": Reduced(os.system, f"touch {file}"),
        "code": Reduced(exec, code),
        "a function's result called": Reduced(Reduced(functools.partial, os.mkdir, file)),
        "a whole file": Reduced(torch.load, file),
        "a list of them": Reduced(list, [Reduced(os.mkdir, file)]),
        "a state": Reduced(OrderedDict, state={"a": Reduced(os.mkdir, file)}),
    }


@pytest.mark.parametrize("trap", traps(""))
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_gives_its_tensors_and_runs_nothing(tmp_path, trap, legacy):
    found = tmp_path / "sprung"
    state = {
        "config": traps(str(found))[trap],
        "model": {"a": torch.arange(3.0), "b": torch.nn.Parameter(torch.ones(2))},
    }
    torch.save(state, tmp_path / "weights.tar", _use_new_zipfile_serialization=not legacy)
    tensors = tensors_only(tmp_path / "weights.tar", "model")
    assert torch.equal(tensors["a"], torch.arange(3.0)) and torch.equal(tensors["b"], torch.ones(2))
    assert not found.exists()


def test_the_traps_are_no_dummies(tmp_path):
    pickle.loads(pickle.dumps(traps(str(tmp_path / "sprung"))["code"]))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("place", ["model", "a tensor"])
def test_a_foreign_object_in_place_of_tensors_is_refused_and_not_run(tmp_path, place):
    trap = Reduced(os.mkdir, str(tmp_path / "sprung"))
    torch.save({"model": trap if place == "model" else {"a": torch.ones(2), "b": trap}}, tmp_path / "weights.tar")
    with pytest.raises(ValueError, match=r"has no tensors under 'model'|b under 'model' is no tensor"):
        tensors_only(tmp_path / "weights.tar", "model")
    assert not (tmp_path / "sprung").exists()


def test_torchs_own_functions_cannot_be_changed_by_a_file(tmp_path):
    # By hand, since no pickler writes it: {"model": {}, "config": the function, and a state for it, its new defaults}.
    change = b"\x80\x02}X\x05\x00\x00\x00model}s(X\x06\x00\x00\x00configctorch._utils\n_rebuild_tensor_v2\n"
    change += b"N}X\x0c\x00\x00\x00__defaults__)s\x86bu."
    # Before PyTorch 1.6 a file was several pickles: a magic number, protocol, system, the object, keys of storages.
    before, after = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})], pickle.dumps([], 2)
    (tmp_path / "weights.tar").write_bytes(b"".join(before) + change + after)
    with pytest.raises(ValueError, match="has no tensors under 'model'"):
        tensors_only(tmp_path / "weights.tar", "model")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)


def test_what_is_foreign_keeps_nothing():
    ignored = Ignored(1, a=2)
    ignored.__setstate__({"b": 3})
    ignored["c"] = 4
    ignored.append(5)
    assert vars(ignored) == {} and ignored(6) is ignored


def test_tensors_of_an_archive_stay_on_disk_and_equal_storages_are_shared(tmp_path):
    base = torch.arange(6.0)
    trap = Reduced(os.mkdir, str(tmp_path / "sprung"))
    torch.save(
        {"model": {"a": base, "b": base[2:4].half(), "c": base.view(2, 3).T}, "config": trap}, tmp_path / "w.pt"
    )
    tensors = tensors_only(tmp_path / "w.pt", "model")
    assert tensors["b"].dtype == torch.float16 and torch.equal(tensors["c"], base.view(2, 3).T)
    assert tensors["a"].data_ptr() == tensors["c"].data_ptr()


def write_torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps({"model": {}}, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_cut_off(path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1000)}}, path)
    os.truncate(path, 2000)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "write",
    [write_torchscript, write_tar, write_cut_off, Path.touch, lambda path: path.write_text("version https://git-lfs")],
    ids=["TorchScript", "tar", "cut off", "empty", "words"],
)
def test_a_file_of_another_format_or_damaged_is_refused(tmp_path, write):
    write(tmp_path / "weights.tar")
    with pytest.raises(ValueError, match=r"weights\.tar: is no whole file of PyTorch weights\."):
        tensors_only(tmp_path / "weights.tar", "model")


def test_a_file_without_named_tensors_or_that_is_not_there_is_refused(tmp_path):
    torch.save({"weights": {}}, tmp_path / "weights.tar")
    with pytest.raises(ValueError, match="has no tensors under 'model'"):
        tensors_only(tmp_path / "weights.tar", "model")
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such file"):
        tensors_only(tmp_path / "nowhere", "model")
