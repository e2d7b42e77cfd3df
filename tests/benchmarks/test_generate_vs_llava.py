import json

import pytest
import torch

from litegpt.benchmarks.generate_vs_llava import Clock, main
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration


def test_a_quick_run_records_prefill_and_decode(tmp_path, capsys):
    main(str(tmp_path / "bench.json"), hidden_size=24, num_layers=2, new_tokens=3, repeats=2)
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {"prefill_vs_llava", "decode_vs_llava"}
    assert all(result["value"] > 0 and result["unit"] == "x" for result in results.values())
    assert "LiteGPT with LLaVA's weights: prefill" in capsys.readouterr().out


def test_networks_that_answer_differently_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(LiteGPTForConditionalGeneration, "load_state_dict", lambda self, *args, **kwargs: None)
    with pytest.raises(SystemExit, match="different networks"):
        main(str(tmp_path / "bench.json"), hidden_size=24, num_layers=2, new_tokens=3, repeats=1)
    assert not (tmp_path / "bench.json").exists()


def test_the_clock_waits_for_the_device_and_changes_no_score():
    waited = []
    clock = Clock(lambda: waited.append(len(clock.times)))
    scores = torch.tensor([[0.5, -1.0]])
    for _ in range(2):
        assert clock(torch.tensor([[1]]), scores) is scores
    assert waited == [0, 1] and clock.times[0] <= clock.times[1]
