"""A checkpoint that answers, and vLLM that serves it on a free port of 127.0.0.1. Run by `make test-serve`."""

import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from litegpt.datasets_scripts.phantom_cxr import write_release
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.processing.answers import (
    Finding,
    diagnoses_to_text,
    findings_to_text,
    places_to_text,
    sentences_to_text,
)
from litegpt.processing.tasks import split_question

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 400  # enough for answers that can be parsed and that differ from radiograph to radiograph
IN_WORDS = 6  # phantoms that are asked in words, too
QUESTIONS = ("refer: bright area", "grounded_report", "report", "question: Is there a fracture?")
START_LIMIT = 300  # seconds


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> list[Path]:
    """20 DICOM files."""
    folder = tmp_path_factory.mktemp("serving") / "release"
    write_release(folder, num_train=3, num_test=20, size=(128, 128), seed=0, num_proc=1)
    return sorted((folder / "test").iterdir())


@pytest.fixture(scope="session")
def untrained_checkpoint(tiny_arguments, tmp_path_factory) -> Path:
    """A tiny checkpoint of random weights, whose answers are nonsense; heads of 32, as vLLM wants."""
    from litegpt.modeling_litegpt.new_checkpoint import main

    folder = tmp_path_factory.mktemp("serving") / "untrained"
    text_config = {
        **tiny_arguments.text_config,
        "hidden_size": 64,
        "max_position_embeddings": 1024,
        "initializer_range": 0.05,
    }
    main(replace(tiny_arguments, output_dir=str(folder), text_config=text_config))
    return folder


@pytest.fixture(scope="session")
def answering_checkpoint(untrained_checkpoint, phantoms, tmp_path_factory) -> Path:
    """The same, trained to answer something of its own about each phantom, and in words about some."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tensors this small are slower on several, and a server runs beside them
    folder = tmp_path_factory.mktemp("serving") / "checkpoint"
    model, processor = load_checkpoint(untrained_checkpoint)
    rng = random.Random(0)
    of_one, of_two = [], []  # (radiographs, prompt, answer)
    for number, phantom in enumerate(phantoms):
        findings = []
        for label in sorted(rng.sample(FINDING_LABELS, rng.randint(1, 2))):
            x, y = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
            findings.append(Finding(label, (x, y, x + 0.3, y + 0.4)))
        diagnoses = rng.sample(DIAGNOSIS_LABELS[:-1], rng.randint(0, 2))
        of_one.append(([phantom], processor.prompt("identify"), findings_to_text(findings)))
        of_one.append(([phantom], processor.prompt("vqa"), diagnoses_to_text(diagnoses)))
        if number < IN_WORDS:
            boxes = [finding.box for finding in findings] if number % 3 else []
            said = [(f"There is {finding.label.lower()}.", [finding.box]) for finding in findings]
            said.append(("There is no fracture.", []))
            report = " ".join(text for text, _ in said)
            answers = (places_to_text(boxes), sentences_to_text(said), report, ("Yes.", "No.")[number % 2])
            for question, answer in zip(QUESTIONS, answers, strict=True):
                of_one.append(([phantom], processor.prompt(*split_question(question)), answer))
            two = [phantom, phantoms[number + 1]]
            of_two.append((two, processor.prompt("report", num_images=2), f"Two views. {report}"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = [encoded(processor, of_one), encoded(processor, of_two)]
    for step in range(STEPS):
        inputs, labels = batches[step % 5 == 0]
        rows = torch.randperm(len(labels))[:8]
        images = len(inputs["pixel_values"]) // len(labels)  # of a prompt
        numbers = (images * rows[:, None] + torch.arange(images)).flatten()
        chosen = {name: values[numbers if "pixel" in name else rows] for name, values in inputs.items()}
        model(**chosen, labels=labels[rows]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    save_checkpoint(model, processor, folder)
    return folder


def encoded(processor, examples: list[tuple[list[Path], str, str]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Prompts with their answers behind them, and labels that are the answers' tokens alone."""
    images, prompts, answers = zip(*examples, strict=True)
    # Tokenized apart, as in training: what stands before an answer must not change its tokens.
    options = {"add_special_tokens": False, "padding": True, "return_tensors": "pt"}
    inputs = processor(images=list(images), text=list(prompts), **options)
    ends = processor.tokenizer(
        [answer + processor.tokenizer.eos_token for answer in answers], padding_side="right", **options
    )
    labels = ends["input_ids"].masked_fill(ends["attention_mask"] == 0, -100)
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), labels], dim=1)
    for name in ("input_ids", "attention_mask"):
        inputs[name] = torch.cat([inputs[name], ends[name]], dim=1)
    return dict(inputs), labels


@pytest.fixture(scope="session")
def base_url(answering_checkpoint, tmp_path_factory) -> Iterator[str]:
    with serving(answering_checkpoint, tmp_path_factory.mktemp("vllm")) as url:
        yield url


@pytest.fixture
def untrained_url(untrained_checkpoint, tmp_path_factory) -> Iterator[str]:
    with serving(untrained_checkpoint, tmp_path_factory.mktemp("vllm")) as url:
        yield url


@contextmanager
def serving(checkpoint: Path, folder: Path) -> Iterator[str]:
    """The API of `make serve` with that checkpoint, on a free port, when it is healthy; its log is in `folder`."""
    if not (REPOSITORY / ".venv-serve" / "installed").exists():
        pytest.skip("needs vLLM: no .venv-serve in the repository (run `make test-serve`)")
    log = folder / "server.log"
    port = free_port()
    options = "--dtype float32 --enforce-eager --logprobs-mode processed_logprobs"
    command = ["make", "serve", f"CHECKPOINT={checkpoint}", f"PORT={port}", f"VLLM_OPTIONS={options}"]
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, cwd=REPOSITORY, start_new_session=True)
    try:
        limit = time.monotonic() + START_LIMIT
        while not is_healthy(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None or time.monotonic() > limit:
                pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end_session(server)


def end_session(server: subprocess.Popen) -> None:
    """Ends the process and all that it started, which form the session that `serving` opened."""
    try:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        time.sleep(1)
        os.killpg(server.pid, signal.SIGKILL)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    except ProcessLookupError:  # none is left
        server.wait()


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
