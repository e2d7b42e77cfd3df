import json

import pytest
import torch

from litegpt.benchmarks.dicom_to_tensors import main


def test_a_quick_run_records_speed_and_memory_of_both_paths(tmp_path, capsys):
    # JPEG's reference decoder belongs to the extra `bench`.
    syntaxes = ("raw", "rle", "jpeg2000")
    main(str(tmp_path / "bench.json"), width=160, height=192, repeats=1, phantoms=1, syntaxes=syntaxes)
    results = json.loads((tmp_path / "bench.json").read_text())
    paths = ("exact", "fast", "exact_memory", "fast_memory")
    expected = {f"dicom/{name}/{path}" for name in syntaxes for path in paths} | {"dicom/jpeg2000/exact_2_threads"}
    assert set(results) == expected
    assert all(result["value"] > 0 and result["unit"] == "x" and result["against"] for result in results.values())
    assert "the decoder alone takes" in capsys.readouterr().out


def test_an_exact_path_that_is_not_exact_is_no_result(tmp_path, monkeypatch):
    black = [torch.zeros(1, 3, 224, 224)] * 2
    monkeypatch.setattr("litegpt.benchmarks.dicom_to_tensors.paper", lambda path, clip: black)
    with pytest.raises(SystemExit, match="not the reference's"):
        main(str(tmp_path / "bench.json"), width=160, height=192, repeats=1, phantoms=1, syntaxes=("raw",))
    assert not (tmp_path / "bench.json").exists()
