"""What of the comparison needs no open_clip; what does runs in the environment of `make test-convert`."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from litegpt.benchmarks.cxr_clip_vs_open_clip import (
    OURS,
    InTurn,
    check_same_vectors,
    interleaved_rounds,
    main,
    new_training,
    same_towers,
    step_against_open_clip,
)
from litegpt.train_scripts.contrastive_loss import contrastive_loss

ROOT = Path(__file__).parents[2]
NEEDS_OPEN_CLIP = pytest.mark.skipif(
    importlib.util.find_spec("open_clip_train") is None,
    reason="compares with open_clip; `make test-convert` installs it",
)


def test_a_tiny_run_records_the_memory_and_says_what_the_step_needs(tmp_path):
    options = ["--output", str(tmp_path / "bench.json"), "--batch_size", "2", "--num_steps", "1", "--rounds", "1"]
    process = subprocess.run(
        [sys.executable, "benchmarks/cxr_clip_vs_open_clip.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "bench.json").read_text())
    # The batch's vectors are computed anew in chunks, and its pictures are held: a little more than a plain step.
    assert 0.8 < results.pop("cxr_clip/memory_16_vs_2")["value"] < 4
    steps = {"cxr_clip/step_vs_open_clip", "cxr_clip/plain_step_vs_open_clip"}
    if importlib.util.find_spec("open_clip_train") is None:
        assert not results and ".venv-convert/bin/python" in process.stdout
    else:
        assert set(results) == steps


def test_without_a_gpu_nothing_is_measured_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(str(tmp_path / "bench.json"), "cuda", ["step", "memory"], batch_size=2, num_steps=1, rounds=1)
    assert "No GPU here" in capsys.readouterr().out and not (tmp_path / "bench.json").exists()


def test_rounds_alternate_and_the_first_one_is_not_timed():
    calls = []
    turns = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in ("a", "b")}
    assert interleaved_rounds(turns, 2, "of a test") == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert calls == ["b", "a", "a", "b", "b", "a"]


def test_ready_batches_come_in_turn_and_are_not_changed():
    collator = InTurn([{"number": torch.tensor(0)}, {"number": torch.tensor(1)}])
    shown = [collator([7]) for _ in range(3)]
    shown[0].pop("number")
    assert [int(batch["number"]) for batch in shown[1:]] == [1, 0]
    assert "number" in collator.batches[0]


@NEEDS_OPEN_CLIP
def test_both_sides_have_the_same_vectors_and_the_same_loss_of_one_view(tmp_path):
    from open_clip import ClipLoss

    training = new_training("cpu", 4, False, str(tmp_path))
    batch = dict(training.collator.batch([0, 1, 2, 3], np.random.default_rng(0)))
    batch["pixel_values"] = batch["pixel_values"].expand(-1, 3, -1, -1)
    theirs = same_towers(training.model)
    check_same_vectors(training.model, theirs, batch)
    outputs = training.model(**batch)
    ours = contrastive_loss(outputs.image_embeds[None], outputs.text_embeds[None], outputs.logit_scale)
    answer = theirs(batch["pixel_values"], batch["input_ids"])
    torch.testing.assert_close(ours.loss, ClipLoss()(**answer))
    with torch.no_grad():
        theirs.text.proj.bias += 0.1
    with pytest.raises(SystemExit, match="other vectors"):
        check_same_vectors(training.model, theirs, batch)


@NEEDS_OPEN_CLIP
def test_both_sides_train_and_their_steps_are_compared(capsys):
    results = step_against_open_clip("cpu", batch_size=2, num_steps=1, rounds=1, multi_view=True)
    assert results["cxr_clip/step_vs_open_clip"]["value"] > 0
    assert f"{OURS}: " in capsys.readouterr().out
