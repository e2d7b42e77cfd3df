import json
import sys

import pytest

from litegpt.benchmarks import gpu_pixels
from litegpt.benchmarks.gpu_pixels import main, needed_by_trainings

TRAINING = {
    "training/litegpt/bfloat16/pixels/sdpa/speed": {"value": 34.0, "unit": "samples/s"},
    "training/litegpt/bfloat16/features/sdpa/speed": {"value": 900.0, "unit": "samples/s"},
    "towers/paper/cxr_clip_swin/eager/speed": {"value": 800.0, "unit": "samples/s"},
    "towers/paper/ecamp/eager/speed": {"value": 1500.0, "unit": "samples/s"},
    "towers/paper/ecamp/eager/mfu": {"value": 9999.0, "unit": "x"},
}


def test_each_source_is_read_and_held_against_what_was_measured_before(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)  # as on a machine that lacks it
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(TRAINING))
    main(str(path), width=96, height=120, workers=[1, 2], seconds=0.05)
    results = {name: result for name, result in json.loads(path.read_text()).items() if name not in TRAINING}
    sources = ("rows", "raw", "rle", "jpeg2000")
    expected = {f"pixels/{source}/{count}_processes" for source in sources for count in (1, 2)}
    assert set(results) == expected | {"pixels/rows/stored", "pixels/rows/fed_vs_needed"}  # no answers were measured
    assert all(result["value"] > 0 for result in results.values())
    fed = max(results[f"pixels/rows/{count}_processes"]["value"] for count in (1, 2))
    assert results["pixels/rows/fed_vs_needed"]["value"] == pytest.approx(fed / 1600)
    assert "pylibjpeg" in results["pixels/jpeg2000/1_processes"]["against"]


def test_a_syntax_that_nothing_here_writes_is_left_out_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_pixels, "SYNTAXES", {"jpeg2000": (gpu_pixels.SYNTAXES["jpeg2000"][0], "no_such_module")})
    main(str(tmp_path / "bench.json"), width=96, height=120, workers=[1], seconds=0.05)
    assert "jpeg2000: left out, pylibjpeg-no_such_module" in capsys.readouterr().out
    assert not any("jpeg2000" in name for name in json.loads((tmp_path / "bench.json").read_text()))


def test_a_study_of_cxr_clip_is_two_radiographs_and_features_need_none():
    value, which = needed_by_trainings(TRAINING)
    assert value == 1600 and "cxr_clip_swin" in which
    assert needed_by_trainings({}) is None
