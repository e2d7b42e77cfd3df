import json
import multiprocessing
import threading
import time

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from transformers import TrainerState

from litegpt.benchmarks import train_vs_stock
from litegpt.benchmarks.measured_training import StepMeter, drawn_rows
from litegpt.benchmarks.train_vs_stock import (
    check_same_tokens,
    interleaved_steps,
    litegpt_training,
    main,
    stock_training,
)

SIZES = {"hidden_size": 24, "num_layers": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def rows():
    return drawn_rows(4)


@pytest.mark.slow
def test_a_quick_run_records_the_ratios_of_all_trainings(tmp_path, capsys):
    main(str(tmp_path / "bench.json"), **SIZES, num_steps=2, rounds=1)
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {"train_vs_stock", "train_cached_vs_stock", "train_cached_grouped_vs_stock"}
    assert all(result["value"] > 0 and result["unit"] == "x" for result in results.values())
    assert capsys.readouterr().out.count("MFU") == 4


def test_both_trainers_get_the_same_tokens_and_train_the_same_weights(rows, tmp_path):
    ours = litegpt_training(train_vs_stock.PIXELS, rows, **SIZES, folder=str(tmp_path / "ours"))
    stock = stock_training(train_vs_stock.STOCK, rows, **SIZES, folder=str(tmp_path / "stock"))
    batches = [list(trainer.get_train_dataloader()) for trainer in (ours, stock)]
    assert len(batches[0]) == 2
    for our_batch, stock_batch in zip(*batches, strict=True):
        for name in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(our_batch[name], stock_batch[name])
        assert torch.allclose(our_batch["pixel_values"], stock_batch["pixel_values"], atol=0.02)  # rounding of greys
    trained = [
        {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        for trainer in (ours, stock)
    ]
    assert trained[0] == trained[1] and any("lora_A" in name for name in trained[0])
    assert not any("tower" in name for name in trained[0])


def test_steps_are_taken_in_turn(monkeypatch):
    """A step must not begin before the step of the training beside it has ended."""
    monkeypatch.setattr(train_vs_stock, "matmul_speed", lambda size, dtype: 1.0)
    events, connections, threads = [], {}, []

    def take_steps(connection, name):
        for _ in range(3):
            connection.send("ready")
            connection.recv()
            events.append(f"{name} begins")
            time.sleep(0.01)
            events.append(f"{name} ends")
        connection.send(f"result of {name}")

    for name in ("a", "b"):
        connections[name], theirs = multiprocessing.Pipe()
        threads.append(threading.Thread(target=take_steps, args=(theirs, name)))
        threads[-1].start()
    received, peaks = interleaved_steps(connections, 3)
    for thread in threads:
        thread.join()
    assert received == {"a": "result of a", "b": "result of b"} and peaks == [1.0] * 3
    assert events == [f"{name} {what}" for name in "baabba" for what in ("begins", "ends")]


def test_operations_are_counted_forward_and_backward_and_attention_is_among_them():
    layer = nn.Linear(8, 8, bias=False)
    query = torch.randn(1, 2, 16, 4, requires_grad=True)

    def step():
        layer(torch.randn(4, 8)).sum().backward()  # the input needs no gradient: forward, and that of the weight
        nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True).sum().backward()

    attention = 2 * 2 * 16 * 16 * 4  # of a product of two matrices for both heads
    meter = StepMeter(num_counted=1)
    for _ in range(2):
        take_steps(meter, 1, step)
    assert meter.operations == [2 * (2 * 4 * 8 * 8) + 7 * attention]
    assert len(meter.seconds) == 2


def test_nothing_is_counted_while_a_step_is_timed():
    """Counting slows a step: also in a training after the first one it must not begin anew."""
    counting = []
    meter = StepMeter(num_counted=2)
    for _ in range(2):
        take_steps(meter, 2, lambda: counting.append(_get_current_dispatch_mode() is not None))
    assert counting == [True, True, False, False] and len(meter.seconds) == 4


def take_steps(meter, count, step):
    """What the trainer calls in a training of `count` steps."""
    state = TrainerState(max_steps=count)
    meter.on_train_begin(None, state, None)
    for _ in range(count):
        step()
        state.global_step += 1
        meter.on_step_end(None, state, None)


@pytest.mark.parametrize("other", train_vs_stock.TRAININGS[:3])
def test_trainings_of_other_tokens_are_not_compared(other):
    tokens = dict.fromkeys(train_vs_stock.TRAININGS[:3], "same") | {train_vs_stock.GROUPED: "same, in other batches"}
    check_same_tokens({name: {"tokens": digest} for name, digest in tokens.items()})
    with pytest.raises(SystemExit, match="did not show the same tokens"):
        check_same_tokens({name: {"tokens": digest} for name, digest in (tokens | {other: "others"}).items()})
