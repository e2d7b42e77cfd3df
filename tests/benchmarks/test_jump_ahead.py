import json
from dataclasses import replace

import pytest
import torch

from litegpt.benchmarks.jump_ahead import Asked, main
from litegpt.processing.constrained_decoding import ConstrainedGreedy


@pytest.fixture
def options(tmp_path, tiny_checkpoint, phantom_release) -> dict:
    return {
        "output": str(tmp_path / "bench.json"),
        "asked": Asked(str(tiny_checkpoint), str(phantom_release), str(tmp_path / "cache"), 3, 40),
    }


def test_a_quick_run_records_passes_and_times(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # it takes a minute
    main(**options, compiled=True)
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {
        "jump_ahead/passes",
        *(
            f"jump_ahead/{figure}_{batch}{way}"
            for figure in ("wall", "decoding")
            for batch in ("batch1", "batch16")
            for way in ("", "_compiled")
        ),
    }
    assert all(result["unit"] == "x" for result in results.values())
    assert all(result["value"] > 0 for name, result in results.items() if "decoding" not in name)
    printed = capsys.readouterr().out
    assert "batch1: 40.00 passes a call by plain greedy generate" in printed and "batch16: " in printed


def test_other_answers_than_those_of_ordinary_decoding_are_an_error(options, tmp_path, monkeypatch):
    decode = ConstrainedGreedy.__call__

    def wrong(self, *args, **kwargs):
        output = decode(self, *args, **kwargs)
        output.sequences[0, -2] += 1
        return output

    monkeypatch.setattr(ConstrainedGreedy, "__call__", wrong)
    with pytest.raises(SystemExit, match="not that of ordinary constrained decoding"):
        main(**options)
    assert not (tmp_path / "bench.json").exists()


def test_without_a_checkpoint_nothing_is_measured_and_that_is_said(options, tmp_path, capsys):
    main(**{**options, "asked": replace(options["asked"], model_name_or_path=str(tmp_path / "none"))})
    assert "nothing was measured (`make demo` trains one)" in capsys.readouterr().out
    assert not (tmp_path / "bench.json").exists()
