"""Every path on which a prompt and its answer become tokens, for tests that hold them against each other."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from transformers import CLIPImageProcessor, ImageTextToTextPipeline, PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from litegpt.datasets_scripts.instructions import instructions_for
from litegpt.processing.processing_litegpt import LiteGPTProcessor, add_litegpt_tokens
from litegpt.train_scripts.examples import ChatCollator, prompt_ids

PICTURE = Image.new("L", (48, 40), 90)


def processor_of(
    tokenizer: PreTrainedTokenizerBase, finding_labels: Sequence[str], diagnosis_labels: Sequence[str]
) -> LiteGPTProcessor:
    """A processor for one tower, with a radiograph of four visual tokens."""
    add_litegpt_tokens(tokenizer)
    return LiteGPTProcessor(
        CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        tokenizer=tokenizer,
        num_towers=1,
        image_seq_length=4,
        finding_labels=list(finding_labels),
        diagnosis_labels=list(diagnosis_labels),
        instructions=instructions_for(diagnosis_labels),
    )


def chat(processor: LiteGPTProcessor, task: str, answer: str | None = None) -> list[dict]:
    """The user's turn of a task, and the assistant's."""
    text = f"[{task}] {processor.instructions[task]}"
    turns = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": text}]}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def prompt_by_path(
    processor: LiteGPTProcessor, task: str, pipe: ImageTextToTextPipeline | None = None
) -> dict[str, list[int]]:
    """The tokens of a task's prompt; the first path is that of the training."""
    prompt = processor.prompt(task)
    inputs: dict[str, Callable] = {
        "training": lambda: {"input_ids": [prompt_ids(processor, task)]},
        "call": lambda: processor(images=PICTURE, text=prompt),
        "call without special tokens": lambda: processor(images=PICTURE, text=prompt, add_special_tokens=False),
        "call, by text_kwargs": lambda: processor(
            images=PICTURE, text=[prompt], text_kwargs={"add_special_tokens": False}
        ),
        "call with a prompt without its first token": lambda: processor(
            images=PICTURE,
            text=prompt.removeprefix(processor.tokenizer.bos_token) if _adds_bos(processor.tokenizer) else prompt,
        ),
        "chat": lambda: processor.apply_chat_template(
            chat(processor, task), tokenize=True, return_dict=True, add_generation_prompt=True
        ),
    }
    if pipe is not None:
        inputs["pipeline, images and text"] = lambda: pipe.preprocess({"images": PICTURE, "text": prompt})
        inputs["pipeline, chat"] = lambda: next(_chats_of(pipe, chat(processor, task)))
    return {name: _list(function()["input_ids"][0]) for name, function in inputs.items()}


def answered_by_path(processor: LiteGPTProcessor, task: str, answer: str) -> dict[str, list[int]]:
    """The tokens of a prompt with its answer; the first path is that of the training."""
    ours = ChatCollator(processor, None, [], features=torch.zeros(1, 1))
    theirs = DataCollatorForVisionLanguageModeling(processor)
    turns = chat(processor, task, answer)
    plain = [{"role": turn["role"], "content": turn["content"][-1]["text"]} for turn in turns]
    inputs = {
        "training": lambda: ours([{"view": 0, "second_view": -1, "task": task, "about": None, "answer": answer}]),
        "prompt and answer_ids": lambda: {
            "input_ids": [
                prompt_ids(processor, task) + processor.answer_ids(answer) + [processor.tokenizer.eos_token_id]
            ]
        },
        "chat": lambda: processor.apply_chat_template(turns, tokenize=True, return_dict=True),
        "TRL, messages": lambda: theirs([{"messages": plain, "images": [PICTURE]}]),
        "TRL, prompt and completion": lambda: theirs(
            [{"prompt": plain[:1], "completion": plain[1:], "images": [PICTURE]}]
        ),
    }
    return {name: _list(function()["input_ids"][0]) for name, function in inputs.items()}


def pipeline_of(model: PreTrainedModel, processor: LiteGPTProcessor) -> ImageTextToTextPipeline:
    """The library's pipeline, for its `preprocess` alone: the model's vocabulary need not be the tokenizer's."""
    return ImageTextToTextPipeline(model=model, processor=processor)


def _chats_of(pipe: ImageTextToTextPipeline, turns: list[dict]):
    """What the pipeline's `preprocess` makes of a chat, which only `__call__` wraps as it likes."""
    made = []
    preprocess = pipe.preprocess
    pipe.preprocess = lambda *args, **kwargs: made.append(preprocess(*args, **kwargs)) or made[-1]
    pipe.forward = lambda inputs, **kwargs: inputs
    pipe.postprocess = lambda inputs, **kwargs: inputs
    try:
        pipe(text=turns)
    finally:
        del pipe.preprocess, pipe.forward, pipe.postprocess
    return iter(made)


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer("")["input_ids"] == [tokenizer.bos_token_id]


def _list(ids) -> list[int]:
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
