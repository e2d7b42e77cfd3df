"""What somebody with a checkpoint and some transformers does, step by step; `run_versions.py` runs it.

    python stranger.py RADIOGRAPH OUTPUT.npz CHECKPOINT [CHECKPOINT ...]

The first LiteGPT, CXR-CLIP and ECAMP are tried in all ways; of every checkpoint the logits, the vectors of an image
and of texts, or what is drawn and read go to OUTPUT.npz. Prints a JSON line for each step:
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
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from tests.stranger import NOTHING_OF_OURS
from tests.versions.touch_points import missing

TRUST = {"trust_remote_code": True}
LABELS = ["pneumothorax", "pleural effusion", "an enlarged heart"]
NEGATIVE = "no {}"


def main(radiograph: str, output: str, *checkpoints: str) -> None:
    by_kind: dict[str, list[str]] = {}
    for path in checkpoints:
        by_kind.setdefault(kind_of(path), []).append(path)
    checkpoint, cxr_clip, ecamp = (by_kind[kind][0] for kind in OUTPUTS_OF)
    outputs: dict[str, np.ndarray] = {}
    step("touch points", lambda: same(missing(), []))
    step("every Auto class", every_auto_class, checkpoint)
    for number, path in enumerate(checkpoints):
        of_path = OUTPUTS_OF[kind_of(path)]
        step(
            f"outputs {number}",
            lambda path=path, number=number, of_path=of_path: outputs.update({str(number): of_path(path)}),
        )
    step("generate", plain_generation, checkpoint)
    step("constrained", constrained_generation, checkpoint)
    step("findings pipeline", findings_pipeline, checkpoint)
    step("chat pipeline", chat_pipeline, checkpoint)
    step("save", saving, checkpoint)
    step("CXR-CLIP: Auto classes", cxr_clip_auto_classes, cxr_clip)
    step("CXR-CLIP: pipeline", zero_shot_pipeline, cxr_clip)
    step("CXR-CLIP: save", saving_cxr_clip, cxr_clip)
    step("ECAMP: save", saving_ecamp, ecamp)
    np.savez(output, **outputs)


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


def kind_of(checkpoint: str) -> str:
    return json.loads(Path(checkpoint, "config.json").read_text(encoding="utf-8"))["model_type"]


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


# --- CXR-CLIP --------------------------------------------------------------------------------------------------------


def cxr_clip_auto_classes(checkpoint: str) -> None:
    same(type(AutoConfig.from_pretrained(checkpoint, **TRUST)).__name__, "CXRCLIPConfig")
    for auto in (AutoModel, AutoModelForZeroShotImageClassification):
        same(type(auto.from_pretrained(checkpoint, **TRUST)).__name__, "CXRCLIPModel")
    same(type(AutoProcessor.from_pretrained(checkpoint, **TRUST)).__name__, "CXRCLIPProcessor")


def vectors_of(checkpoint: str) -> np.ndarray:
    """(1 + 2 labels, projection_dim): the radiograph's vector, those of the labels and of their negations."""
    model = AutoModel.from_pretrained(checkpoint, **TRUST).eval()
    texts = [*LABELS, *(NEGATIVE.format(label) for label in LABELS)]
    inputs = AutoProcessor.from_pretrained(checkpoint, **TRUST)(images=RADIOGRAPH, text=texts)
    with torch.no_grad():
        outputs = model(**inputs)
    return torch.cat([outputs.image_embeds, outputs.text_embeds]).numpy()


def zero_shot_pipeline(checkpoint: str) -> None:
    image, *texts = torch.from_numpy(vectors_of(checkpoint))
    positive, negative = (torch.stack(texts) @ image).view(2, len(LABELS))
    by_hand = dict(zip(LABELS, (positive - negative).sigmoid().tolist(), strict=True))
    asked = {"candidate_labels": LABELS, "negative_template": NEGATIVE}
    pipe = pipeline("zero-shot-image-classification", model=checkpoint, **TRUST)
    answer = pipe(RADIOGRAPH, **asked)
    scores = {found["label"]: found["score"] for found in answer}
    np.testing.assert_allclose([scores[label] for label in LABELS], list(by_hand.values()), atol=1e-4)
    alone = pipe(RADIOGRAPH, candidate_labels=LABELS)
    np.testing.assert_allclose(sum(found["score"] for found in alone), 1, atol=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        same(pipeline("zero-shot-image-classification", model=folder, **TRUST)(RADIOGRAPH, **asked), answer)


def saving_cxr_clip(checkpoint: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForZeroShotImageClassification.from_pretrained(checkpoint, **TRUST).save_pretrained(folder)
        AutoProcessor.from_pretrained(checkpoint, **TRUST).save_pretrained(folder)
        np.testing.assert_allclose(vectors_of(folder), vectors_of(checkpoint), atol=1e-4)


# --- ECAMP -----------------------------------------------------------------------------------------------------------


def drawn_and_read(checkpoint: str) -> np.ndarray:
    """Of a radiograph of ramps and a sentence: the picture that is drawn of a part of it, and the words' scores."""
    model = AutoModel.from_pretrained(checkpoint, **TRUST).eval()
    same(type(model).__name__, "ECAMPModel")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    side = model.config.scale * model.config.vision_config.image_size
    patches = model.mae.vit.embeddings.patch_embeddings.num_patches
    picture = torch.linspace(-1, 1, side * side).view(1, 1, side, side)
    words = tokenizer("there is no pleural effusion.", return_tensors="pt")
    with torch.no_grad():
        outputs = model(
            picture,
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            noise=torch.arange(float(patches))[None],
        )
    return np.concatenate([outputs.super_resolution.flatten().numpy(), outputs.logits.flatten().numpy()])


def saving_ecamp(checkpoint: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        AutoModel.from_pretrained(checkpoint, **TRUST).save_pretrained(folder)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
        np.testing.assert_allclose(drawn_and_read(folder), drawn_and_read(checkpoint), atol=1e-4)


# What is compared of each kind of checkpoint.
OUTPUTS_OF = {"litegpt": logits_of, "cxr_clip": vectors_of, "ecamp": drawn_and_read}


if __name__ == "__main__":
    exec(NOTHING_OF_OURS)
    RADIOGRAPH = sys.argv[1]
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}), flush=True)
    main(*sys.argv[1:])
