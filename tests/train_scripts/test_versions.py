"""A checkpoint written with one version of transformers, read with another: `make test-oldest` runs this."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
OTHER_PYTHON = os.environ.get("LITEGPT_OTHER_PYTHON")

READER = """
import json, sys
import numpy as np
import torch, transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

checkpoint, radiograph, output = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
inputs = processor(images=radiograph, text=processor.prompt("identify"), add_special_tokens=False, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
np.savez(output, logits=logits.numpy(), tokens=tokens.numpy())
print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}))
"""


@pytest.mark.skipif(OTHER_PYTHON is None, reason="LITEGPT_OTHER_PYTHON names no second Python (make test-oldest does)")
@pytest.mark.parametrize("writer_is_this", [True, False], ids=["written here", "written by the other"])
def test_a_checkpoint_gives_identical_logits_in_both_versions(writer_is_this, phantom_release, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # for the code that a checkpoint brings along
    pythons = [sys.executable, str(Path(OTHER_PYTHON).absolute())]
    writer = pythons[0] if writer_is_this else pythons[1]
    radiograph = next((phantom_release / "test").iterdir())
    checkpoint = tmp_path / "checkpoint"
    options = ["--config", "train_scripts/configs/tiny.yaml", "--output_dir", str(checkpoint)]
    run([writer, "train_scripts/new_checkpoint.py", *options], ROOT, python_path=str(ROOT))

    (tmp_path / "reader.py").write_text(READER)
    versions, results = [], []
    for number, python in enumerate(pythons):
        output = tmp_path / f"{number}.npz"
        printed = run([python, "reader.py", str(checkpoint), str(radiograph), str(output)], tmp_path)
        versions.append(json.loads(printed.splitlines()[-1]))
        results.append(np.load(output))
    print(versions)
    assert versions[0]["transformers"] != versions[1]["transformers"], "both Pythons have the same transformers"
    assert versions[0]["torch"] == versions[1]["torch"], "kernels of different torch versions may round differently"
    for name in ("logits", "tokens"):
        np.testing.assert_array_equal(results[0][name], results[1][name])


def run(command: list[str], folder: Path, python_path: str = "") -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path}
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout.strip()
