"""What somebody with a checkpoint and some transformers does, step by step; `run_versions.py` runs it.

    python stranger.py RADIOGRAPH OUTPUT.npz CHECKPOINT [CHECKPOINT ...]

The first checkpoint is tried in all ways; of every one the logits go to OUTPUT.npz. Prints a JSON line for each step:
{"step": ..., "ok": true | false, "reason": ...}. Nothing of this repository can be imported, except its touch points.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    pipeline,
)

from tests.stranger import NOTHING_OF_OURS
from tests.versions.touch_points import missing

TRUST = {"trust_remote_code": True}


def main(radiograph: str, output: str, *checkpoints: str) -> None:
    checkpoint, logits = checkpoints[0], {}
    step("touch points", lambda: same(missing(), []))
    step("every Auto class", every_auto_class, checkpoint)
    for number, path in enumerate(checkpoints):
        step(f"logits {number}", lambda path=path, number=number: logits.update({str(number): logits_of(path)}))
    step("generate", plain_generation, checkpoint)
    step("constrained", constrained_generation, checkpoint)
    step("findings pipeline", findings_pipeline, checkpoint)
    step("chat pipeline", chat_pipeline, checkpoint)
    step("save", saving, checkpoint)
    np.savez(output, **logits)


def step(name: str, check: Callable, *arguments: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check(*arguments)
            reason = None
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
    for warning in caught:
        if is_ours(warning.filename) and reason is None:
            reason = f"warning of ours: {Path(warning.filename).name}:{warning.lineno} {warning.message}"
    print(json.dumps({"step": name, "ok": reason is None, "reason": reason}), flush=True)


def is_ours(file: str) -> bool:
    """Whether a warning points at a checkpoint's code: a call of ours is what it warns of."""
    return "transformers_modules" in file


def same(value: object, expected: object) -> None:
    if value != expected:
        raise AssertionError(f"{value} is not {expected}")


def every_auto_class(checkpoint: str) -> None:
    same(type(AutoConfig.from_pretrained(checkpoint, **TRUST)).__name__, "LiteGPTConfig")
    same(type(AutoModel.from_pretrained(checkpoint, **TRUST)).__name__, "LiteGPTModel")
    for auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForCausalLM):
        same(type(auto.from_pretrained(checkpoint, **TRUST)).__name__, "LiteGPTForConditionalGeneration")
    same(type(AutoProcessor.from_pretrained(checkpoint, **TRUST)).__name__, "LiteGPTProcessor")


def loaded(checkpoint: str) -> tuple:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, **TRUST).eval()
    processor = AutoProcessor.from_pretrained(checkpoint, **TRUST)
    prompts = [processor.prompt(task) for task in ("identify", "vqa")]
    inputs = processor(
        images=[RADIOGRAPH] * 2, text=prompts, padding=True, add_special_tokens=False, return_tensors="pt"
    )
    return model, processor, inputs


def logits_of(checkpoint: str) -> np.ndarray:
    model, _, inputs = loaded(checkpoint)
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def plain_generation(checkpoint: str) -> None:
    model, _, inputs = loaded(checkpoint)
    greedy = {"max_new_tokens": 8, "do_sample": False}
    with_cache = model.generate(**inputs, **greedy)
    same(torch.equal(with_cache, model.generate(**inputs, **greedy, use_cache=False)), True)
    same(model.generate(**inputs, **greedy, num_beams=2).shape[0], 2)
    model.generate(**inputs, max_new_tokens=4, do_sample=True)
    model.generate(**inputs, **greedy, cache_implementation="static", disable_compile=True)


def constrained_generation(checkpoint: str) -> None:
    model, processor, inputs = loaded(checkpoint)
    jumping = model.generate(**inputs, max_new_tokens=128, custom_generate=processor.constrained_greedy())
    processors = [processor.answer_logits_processor(128)]
    plain = model.generate(**inputs, max_new_tokens=128, do_sample=False, logits_processor=processors)
    same(jumping.tolist(), plain.tolist())


def findings_pipeline(checkpoint: str) -> None:
    answer = pipeline("chest-xray-findings", model=checkpoint, **TRUST)(RADIOGRAPH)
    same(answer["malformed"], {"identify": None, "vqa": None})
    model, processor, _ = loaded(checkpoint)
    again = pipeline("chest-xray-findings", model=model, processor=processor)
    same(again(RADIOGRAPH), answer)
    with tempfile.TemporaryDirectory() as folder:
        again.save_pretrained(folder)
        same(pipeline("chest-xray-findings", model=folder, **TRUST)(RADIOGRAPH), answer)


def chat_pipeline(checkpoint: str) -> None:
    pipe = pipeline("image-text-to-text", model=checkpoint, **TRUST)
    text = f"[vqa] {pipe.processor.instructions['vqa']}"
    content = [{"type": "image", "path": RADIOGRAPH}, {"type": "text", "text": text}]
    greedy = {"return_full_text": False, "generate_kwargs": {"max_new_tokens": 8, "do_sample": False}}
    chat = pipe(text=[{"role": "user", "content": content}], **greedy)[0]["generated_text"]
    plain = pipe(images=RADIOGRAPH, text=pipe.processor.prompt("vqa"), **greedy)[0]["generated_text"]
    same(plain.strip(), chat.strip())


def saving(checkpoint: str) -> None:
    model, processor, inputs = loaded(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        again, _, inputs_again = loaded(folder)
        same(inputs_again["input_ids"].tolist(), inputs["input_ids"].tolist())
        with torch.no_grad():
            torch.testing.assert_close(again(**inputs_again).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)


if __name__ == "__main__":
    exec(NOTHING_OF_OURS)
    RADIOGRAPH = sys.argv[1]
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}), flush=True)
    main(*sys.argv[1:])
