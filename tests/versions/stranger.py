"""What somebody with a checkpoint and some transformers does, step by step; `run_versions.py` runs it.

    python stranger.py RADIOGRAPH OUTPUT.npz CHECKPOINT [CHECKPOINT ...]

The first of each kind of checkpoint is tried in all ways; of every one what `OUTPUTS_OF` says (logits, maps, vectors)
goes to OUTPUT.npz. Prints a JSON line for each step: {"step": ..., "ok": true | false, "reason": ...}. Nothing of this
repository can be imported, except its touch points.
"""

import importlib
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
    AutoModelForImageClassification,
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
    checkpoint, cxr_clip, ecamp, classifier = (by_kind[kind][0] for kind in OUTPUTS_OF)
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
    step("questions in words", questions_in_words, checkpoint)
    step("answer maps", answer_maps, checkpoint)
    step("chat pipeline", chat_pipeline, checkpoint)
    step("save", saving, checkpoint)
    step("CXR-CLIP: Auto classes", cxr_clip_auto_classes, cxr_clip)
    step("CXR-CLIP: pipeline", zero_shot_pipeline, cxr_clip)
    step("CXR-CLIP: save", saving_cxr_clip, cxr_clip)
    step("ECAMP: save", saving_ecamp, ecamp)
    step("classifier: Auto classes", classifier_auto_classes, classifier)
    step("classifier: pipeline", classification_pipeline, classifier)
    step("classifier: save", saving_classifier, classifier)
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
    # On a line of its own: the library's question whether code may be run, which nobody answers, ends in no line.
    print(f"\n{json.dumps({'step': name, 'ok': reason is None, 'reason': reason})}", flush=True)


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
    compiler, torch.compile = torch.compile, lambda function, **_: function  # it takes a minute, and is torch's
    decoding = processor.constrained_greedy(compiled=True)
    same(model.generate(**inputs, max_new_tokens=128, custom_generate=decoding).tolist(), plain.tolist())
    torch.compile = compiler


def findings_pipeline(checkpoint: str) -> None:
    answer = pipeline("chest-xray-findings", model=checkpoint, **TRUST)(RADIOGRAPH)
    same(answer["malformed"], {"identify": None, "vqa": None})
    model, processor, _ = loaded(checkpoint)
    again = pipeline("chest-xray-findings", model=model, processor=processor)
    same(again(RADIOGRAPH), answer)
    with tempfile.TemporaryDirectory() as folder:
        again.save_pretrained(folder)
        same(pipeline("chest-xray-findings", model=folder, **TRUST)(RADIOGRAPH), answer)


def questions_in_words(checkpoint: str) -> None:
    tasks = ["refer: a mass", "describe: {<10><20><30><40>}", "report", "grounded_report", "question: Is it large?"]
    given = [{"images": [RADIOGRAPH] * count, "tasks": tasks} for count in (1, 2)]
    pipe = pipeline("chest-xray-findings", model=checkpoint, **TRUST)
    alone = [pipe(one, max_new_tokens=64) for one in given]
    same([list(answer["answers"]) for answer in alone], [tasks] * 2)
    same([answer["answers"] for answer in pipe(given, batch_size=4, max_new_tokens=64)], [a["answers"] for a in alone])
    model, processor, _ = loaded(checkpoint)
    truth = importlib.import_module(".sentence_truth", type(processor).__module__.rpartition(".")[0])
    inputs = processor(
        images=RADIOGRAPH, text=processor.prompt("report"), add_special_tokens=False, return_tensors="pt"
    )
    pixels = {name: inputs.pop(name) for name in ("pixel_values", "aux_pixel_values")}
    image = model.get_image_features(**pixels, return_dict=True)
    inputs["mm_encoder_outputs"] = {"image": image}
    ((odds,),) = truth.sentence_log_odds(model, processor, inputs, ["No effusion."], [[(0, 12)]])
    same(bool(np.isfinite(odds)), True)


def answer_maps(checkpoint: str) -> None:
    model, processor, inputs = loaded(checkpoint)
    maps = importlib.import_module(".answer_maps", type(processor).__module__.rpartition(".")[0])
    for method in maps.METHODS:
        found = maps.label_maps(model, processor, inputs, ["Cardiomegaly", "ILD"], method)
        same((len(found), bool(np.isfinite(found).all()), bool(found.any())), (2, True, True))
    same(model.get_decoder().config._attn_implementation, "sdpa")


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


# --- Radiograph classifier -------------------------------------------------------------------------------------------


def classifier_auto_classes(checkpoint: str) -> None:
    same(type(AutoConfig.from_pretrained(checkpoint, **TRUST)).__name__, "RadiographClassifierConfig")
    for auto in (AutoModel, AutoModelForImageClassification):
        same(type(auto.from_pretrained(checkpoint, **TRUST)).__name__, "RadiographClassifier")
    same(type(AutoProcessor.from_pretrained(checkpoint, **TRUST)).__name__, "RadiographClassifierProcessor")


def logits_and_maps(checkpoint: str) -> np.ndarray:
    """(labels, 1 + places): of each label the radiograph's logit, and its map."""
    model = AutoModelForImageClassification.from_pretrained(checkpoint, **TRUST).eval()
    inputs = AutoProcessor.from_pretrained(checkpoint, **TRUST)(images=RADIOGRAPH)
    with torch.no_grad():
        outputs = model(**inputs, return_maps=True)
    return torch.cat([outputs.logits[0, :, None], outputs.maps[0].flatten(1)], dim=1).numpy()


def classification_pipeline(checkpoint: str) -> None:
    pipe = pipeline("image-classification", model=checkpoint, **TRUST)
    labels = pipe.model.config.labels
    pipe.model.config.present = dict.fromkeys(labels, 0.0)  # each label's boxes are wanted, however trained it is
    asked = {"return_maps": True, "return_boxes": True}
    by_label = {found["label"]: found for found in pipe(RADIOGRAPH, **asked)}
    expected = logits_and_maps(checkpoint)
    scores = [by_label[label]["score"] for label in labels]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-expected[:, 0])), atol=1e-4)
    maps = [by_label[label]["map"].flatten() for label in labels]
    np.testing.assert_allclose(maps, expected[:, 1:], atol=1e-4)
    same([label for label in labels if not by_label[label]["boxes"]], [])
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        again = pipeline("image-classification", model=folder, **TRUST)
        for found in again(RADIOGRAPH, **asked):
            np.testing.assert_array_equal(found.pop("map"), by_label[found["label"]].pop("map"))
            same(found, by_label[found["label"]])


def saving_classifier(checkpoint: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForImageClassification.from_pretrained(checkpoint, **TRUST).save_pretrained(folder)
        AutoProcessor.from_pretrained(checkpoint, **TRUST).save_pretrained(folder)
        np.testing.assert_allclose(logits_and_maps(folder), logits_and_maps(checkpoint), atol=1e-4)


# What is compared of each kind of checkpoint.
OUTPUTS_OF = {
    "litegpt": logits_of,
    "cxr_clip": vectors_of,
    "ecamp": drawn_and_read,
    "radiograph_classifier": logits_and_maps,
}


if __name__ == "__main__":
    exec(NOTHING_OF_OURS)
    RADIOGRAPH = sys.argv[1]
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}), flush=True)
    main(*sys.argv[1:])
