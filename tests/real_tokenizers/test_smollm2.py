"""A LiteGPT whose language model is a real one: SmolLM2, a Llama of 135 million weights with byte-level tokens."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, new_processor, save_checkpoint
from litegpt.processing.answers import Finding, findings_to_text, text_to_diagnoses, text_to_findings
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.processing_litegpt import VISUAL_TOKEN, LiteGPTProcessor, add_litegpt_tokens
from litegpt.train_scripts.examples import ChatCollator
from tests.prompt_paths import PICTURE, answered_by_path, pipeline_of, prompt_by_path
from tests.real_tokenizers.fetch_packages import SMOLLM2

ANSWER = findings_to_text([Finding("Cardiomegaly", (0.1, 0.2, 0.3, 0.44))])


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2.parent, gguf_file=SMOLLM2.name)
    add_litegpt_tokens(tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def checkpoint(tokenizer, tmp_path_factory):
    """SmolLM2 with two small random towers, saved and loaded: model and processor."""
    torch.manual_seed(0)
    language_model = AutoModelForCausalLM.from_pretrained(SMOLLM2.parent, gguf_file=SMOLLM2.name, dtype=torch.float32)
    language_model.resize_token_embeddings(len(tokenizer))
    tower = {
        "image_size": 32,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 8,
    }
    config = LiteGPTConfig(
        vision_config={"model_type": "vit", **tower},
        aux_vision_config={"model_type": "clip_vision_model", **tower},
        text_config=language_model.config.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids(VISUAL_TOKEN),
        visual_token_group_size=4,
    )
    config.base_models = []
    model = LiteGPTForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.lm_head.load_state_dict(language_model.lm_head.state_dict())
    folder = tmp_path_factory.mktemp("checkpoint") / "smollm2"
    save_checkpoint(model, new_processor(config, tokenizer, FINDING_LABELS, DIAGNOSIS_LABELS), folder)
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def processor(checkpoint) -> LiteGPTProcessor:
    return checkpoint[1]


def test_the_language_model_is_a_real_one(checkpoint, tokenizer):
    """It goes on with a sentence in English, in LiteGPT as it does by itself."""
    model, processor = checkpoint
    inputs = processor.tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert "Paris" in processor.tokenizer.decode(written[0])


def test_prompts_and_answers_have_the_same_tokens_on_every_path(checkpoint):
    model, processor = checkpoint
    prompts = prompt_by_path(processor, "identify", pipeline_of(model, processor))
    assert len({tuple(ids) for ids in prompts.values()}) == 1
    ids = prompts["training"]
    assert processor.tokenizer.convert_ids_to_tokens(ids[:4]) == ["<|im_start|>", "[", "INST", "]"]
    assert ids.count(processor.tokenizer.bos_token_id) == 1
    answered = answered_by_path(processor, "identify", ANSWER)
    assert len({tuple(ids) for ids in answered.values()}) == 1
    assert answered["training"][: len(ids)] == ids
    answer_ids = answered["training"][len(ids) :]
    assert processor.tokenizer.convert_ids_to_tokens(answer_ids[:2]) == ["ĠLocal", "Ġdiseases"]
    assert processor.tokenizer.decode(answer_ids[:-1]) == f" {ANSWER}"


def test_constrained_answers_parse(checkpoint):
    model, processor = checkpoint
    inputs = {"images": PICTURE, "return_tensors": "pt"}
    for task, parse, labels in (
        ("identify", text_to_findings, FINDING_LABELS),
        ("vqa", text_to_diagnoses, DIAGNOSIS_LABELS),
    ):
        prompt = processor(text=processor.prompt(task), **inputs)
        sequences = model.generate(
            **prompt, max_new_tokens=100, do_sample=False, custom_generate=processor.constrained_greedy()
        )
        text = processor.decode(sequences[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.startswith(" ")  # of the first token
        parse(text[1:], labels)


def test_the_pipeline_answers(checkpoint):
    model, processor = checkpoint
    answer = ChestXrayFindingsPipeline(model=model, processor=processor)(PICTURE, max_new_tokens=100)
    assert answer["malformed"] == {"identify": None, "vqa": None}


def test_a_training_step_lowers_the_loss(checkpoint):
    model, processor = checkpoint
    picture = processor(images=PICTURE, text=processor.prompt("identify"), return_tensors="pt")
    features = torch.zeros(1, 1)
    example = {"view": 0, "second_view": -1, "task": "identify", "about": None, "answer": ANSWER}
    batch = ChatCollator(processor, None, [], features)([example])
    batch = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    batch |= {name: picture[name] for name in ("pixel_values", "aux_pixel_values")}
    trained = [*model.model.multi_modal_projector.parameters(), model.lm_head.weight]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    losses = []
    for _ in range(3):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        model.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0] < 20
