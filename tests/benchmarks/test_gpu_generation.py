import json

import pytest
import torch
from transformers import CompileConfig

from litegpt.benchmarks import gpu_generation
from litegpt.benchmarks.gpu_generation import CONFIGS, CONSTRAINED, MODES, PLAIN, decoding_bytes, key_value_bytes, main
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration


def test_the_tiny_model_runs_the_same_code_on_a_cpu_and_compiles_once_a_batch_size(tmp_path, monkeypatch, capsys):
    graphs = []

    def backend(graph, example_inputs, **options):  # in the place of inductor, which takes minutes
        graphs.append(graph)
        return graph.forward

    def compile_config():
        config = CompileConfig(fullgraph=True, dynamic=False, backend=backend)
        config._compile_all_devices = True
        return config

    monkeypatch.setattr(gpu_generation, "compile_config", compile_config)
    path = tmp_path / "bench.json"
    main(str(path), "cpu", "tiny", modes=PLAIN, batch_sizes=(1, 2), new_tokens=4, repeats=1)
    results = json.loads(path.read_text())
    assert set(results) == {
        f"generation/tiny/batch_{batch_size}/{mode}/{figure}"
        for batch_size in (1, 2)
        for mode in ("eager", "compiled")
        for figure in ("prefill", "speed", "share")
    }
    assert all(result["value"] > 0 for result in results.values())
    assert len(graphs) == 2
    assert "GB/s copied" in capsys.readouterr().out


def test_jumps_ahead_read_several_tokens_a_pass_and_are_held_against_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # it takes a minute
    path = tmp_path / "bench.json"
    main(str(path), "cpu", "tiny", modes=CONSTRAINED, batch_sizes=(2,), new_tokens=40, repeats=1)
    results = json.loads(path.read_text())
    assert set(results) == {
        f"generation/tiny/batch_2/{mode}/{figure}"
        for mode in CONSTRAINED
        for figure in ("tokens_a_pass", "gain", "speed", *(["share"] if mode == "jump_compiled" else []))
    }
    per_pass = [results[f"generation/tiny/batch_2/{mode}/tokens_a_pass"]["value"] for mode in CONSTRAINED]
    assert per_pass[0] <= 1 < per_pass[1] <= per_pass[2]
    assert results["generation/tiny/batch_2/constrained/gain"]["value"] == 1


def test_without_a_gpu_nothing_is_measured_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "bench.json"
    main(str(path), "cuda", "litegpt", modes=MODES, batch_sizes=(1,), new_tokens=4, repeats=1)
    assert "No GPU here" in capsys.readouterr().out and not path.exists()


def test_an_unknown_architecture_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="no huge.json in"):
        main(str(tmp_path / "b.json"), "cpu", "huge", modes=MODES, batch_sizes=(1,), new_tokens=4, repeats=1)


def test_bytes_of_a_token_are_those_of_llama_2_7b_without_its_table_of_embeddings():
    config = LiteGPTConfig.from_json_file(CONFIGS / "litegpt.json")
    with torch.device("meta"):
        model = LiteGPTForConditionalGeneration(config).to(torch.bfloat16)
    # Llama 2 7B has 6,738,415,616 parameters; eight rows more are in the head here.
    assert decoding_bytes(model) == 2 * (6_738_415_616 - 32_000 * 4096 + 8 * 4096)
    assert key_value_bytes(config) == 2 * 32 * 4096 * 2
