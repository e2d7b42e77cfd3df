"""Supervised fine-tuning of a LiteGPT checkpoint on a data set's findings and diagnoses, with TRL's `SFTTrainer`.

Stage one, then stage two continued from it, on a CPU or one GPU:

    accelerate launch train_scripts/sft.py --config train_scripts/configs/tiny_stage1.yaml \\
        --model_name_or_path outputs/tiny/towers/checkpoint --data_dir outputs/demo/phantoms \\
        --output_dir outputs/tiny/stage1
    accelerate launch train_scripts/sft.py --config train_scripts/configs/tiny_stage2.yaml \\
        --model_name_or_path outputs/tiny/stage1/checkpoint --data_dir outputs/demo/phantoms \\
        --output_dir outputs/tiny/stage2

Every option of the YAML is a flag too. `OUTPUT_DIR/checkpoint` is ready for the Hub; with LoRA (`--use_peft`)
`OUTPUT_DIR/adapter` holds the adapter, and the checkpoint is the merged model. The same command again goes on where an
interrupted run stopped.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import BitsAndBytesConfig
from trl import ModelConfig, SFTConfig, SFTTrainer, TrlParser

from datasets_scripts.instructions import answer
from processing.processing_litegpt import LITEGPT_TOKENS, LiteGPTProcessor
from train_scripts.checkpoint import LORA_TARGET_MODULES, checkpoint_to_resume, load_checkpoint, save_checkpoint
from train_scripts.files import refuse_bad_input, write_text
from train_scripts.model_card import adapter_card, add_training, training_entry
from train_scripts.patch_features import patch_feature_file
from train_scripts.radiograph_store import Movement, RadiographStore
from train_scripts.rows import check_labels, load_rows


@dataclass
class DataArguments:
    data_dir: str = field(metadata={"help": "A release in VinDr-CXR's layout, or a prepared data set."})
    tasks: list[str] = field(
        default_factory=lambda: ["identify"],
        metadata={"help": "What to ask of every radiograph: identify, grounding, vqa. Several are mixed."},
    )
    train_towers: bool = field(default=False, metadata={"help": "Train the towers too; by default they are frozen."})
    cache_features: bool = field(
        default=False, metadata={"help": "Compute the frozen towers' features once, before training."}
    )
    augmented_views: int = field(
        default=0,
        metadata={
            "help": "Randomly moved views of a radiograph beside the plain one. With findings all are shown in an "
            "epoch, without findings one of them: so radiographs with findings are shown more often."
        },
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Prepared data; the library's own cache by default."}
    )
    training_cache_dir: str | None = field(
        default=None, metadata={"help": "Radiographs and features at the towers' size; OUTPUT_DIR/cache by default."}
    )
    num_proc: int = field(default=1, metadata={"help": "Processes that read radiographs."})


def main(data_args: DataArguments, training_args: SFTConfig, model_args: ModelConfig) -> None:
    if data_args.cache_features and data_args.train_towers:
        raise SystemExit("cache_features: the features of towers that are trained change, so they can't be cached.")
    with refuse_bad_input():
        model, processor = load_checkpoint(
            model_args.model_name_or_path,
            dtype=model_args.dtype,
            attn_implementation=model_args.attn_implementation,
            quantization_config=quantization_of_language_model(model_args),
        )
    for tower in model.model.towers:
        tower.requires_grad_(data_args.train_towers)

    cache_dir = data_args.training_cache_dir or f"{training_args.output_dir}/cache"
    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_args.main_process_first(desc="preparing data"):
        rows = load_rows(data_args.data_dir, "train", data_args.cache_dir, data_args.num_proc)
        check_labels(rows, processor)
        trained = trained_weights(data_args, model_args)
        entry = training_entry("sft.py", data_args.data_dir, len(rows), data_args.tasks, trained, training_args)
        views = views_of(rows, data_args.augmented_views, training_args.seed)
        store = RadiographStore(rows, processor.tower_image_processors, cache_dir)
        features = patch_feature_file(model.model, store, views, cache_dir) if data_args.cache_features else None
    examples = training_examples(rows, views, data_args.tasks, processor)

    # The collator does what SFTTrainer would do with a vision data set, but never truncates: that would cut images.
    training_args.dataset_kwargs = {"skip_prepare_dataset": True}
    training_args.remove_unused_columns = False
    training_args.max_length = None
    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=examples,
        processing_class=processor,
        data_collator=ChatCollator(processor, store, views, features),
        peft_config=lora_config(model_args, processor) if model_args.use_peft else None,
    )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(training_args))
    if trainer.is_world_process_zero():
        add_training(trainer.model.config, entry, trainer.state.global_step)
        save(trainer.model, processor, model_args, training_args.output_dir)


def views_of(rows: Dataset, augmented_views: int, seed: int) -> list[tuple[int, Movement]]:
    """Which radiographs an epoch shows and how they are moved: view 0 is the plain radiograph.

    A radiograph without findings is shown in one view, plain as often as the others are, so that being moved tells
    nothing.
    """
    views = []
    for row, findings in enumerate(rows["findings"]):
        numbers = range(augmented_views + 1) if findings else [row % (augmented_views + 1)]
        for view in numbers:
            rng = np.random.default_rng([seed, row, view])
            views.append((row, Movement.random(rng) if view else Movement()))
    return views


def training_examples(
    rows: Dataset, views: list[tuple[int, Movement]], tasks: list[str], processor: LiteGPTProcessor
) -> Dataset:
    """A view's number, a task and its answer for all of them; left out are tasks whose answer a row doesn't tell."""
    all_findings, all_diagnoses = rows["findings"][:], rows["diagnoses"][:]
    examples: dict[str, list] = {"view": [], "task": [], "answer": []}
    unknown = dict.fromkeys(tasks, 0)
    for view, (row, movement) in enumerate(views):
        for task in tasks:
            # Whether the answer is known does not depend on the view: a finding moved out of sight is not unknown.
            known = answer(
                all_findings[row], all_diagnoses[row], task, processor.finding_labels, processor.diagnosis_labels
            )
            if known is None:
                unknown[task] += 1
                continue
            findings = movement.findings(all_findings[row])
            if all_findings[row] and not findings:
                continue
            text = answer(findings, all_diagnoses[row], task, processor.finding_labels, processor.diagnosis_labels)
            for column, value in zip(examples.values(), (view, task, text), strict=True):
                column.append(value)
    for task, count in unknown.items():
        print(
            f"{task}: {examples['task'].count(task)} examples; {count} left out, as their rows do not tell the answer"
        )
    if not examples["view"]:
        raise SystemExit(f"No radiograph tells the answer to {' or '.join(tasks)}.")
    return Dataset.from_dict(examples)


class ChatCollator:
    """Examples -> the model's tensors, padded on the right; the loss falls on the answer and the end token alone."""

    def __init__(
        self,
        processor: LiteGPTProcessor,
        store: RadiographStore,
        views: list[tuple[int, Movement]],
        features: torch.Tensor | None,
    ):
        self.tokenizer = processor.tokenizer
        self.store, self.views, self.features = store, views, features
        self.prompt_ids = {
            task: self._ids(processor.prompt(task).replace(processor.image_token, processor.expanded_image))
            for task in processor.instructions
        }

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sequences, labels = [], []
        for example in examples:
            prompt_ids = self.prompt_ids[example["task"]]
            answer_ids = self._ids(example["answer"]) + [self.tokenizer.eos_token_id]
            sequences.append(torch.tensor(prompt_ids + answer_ids))
            labels.append(torch.tensor([-100] * len(prompt_ids) + answer_ids))
        input_ids = torch.nn.utils.rnn.pad_sequence(sequences, True, self.tokenizer.pad_token_id)
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": torch.nn.utils.rnn.pad_sequence(labels, True, -100),
            **self._images([example["view"] for example in examples]),
        }

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _images(self, views: list[int]) -> dict[str, torch.Tensor]:
        if self.features is not None:
            return {"patch_features": self.features[views]}
        rows, movements = zip(*(self.views[view] for view in views), strict=True)
        return dict(zip(("pixel_values", "aux_pixel_values"), self.store.pixel_values(rows, movements), strict=False))


def quantization_of_language_model(model_args: ModelConfig) -> BitsAndBytesConfig | None:
    """8 or 4 bit for the language model; towers, projector and head keep their precision (full module paths)."""
    if not (model_args.load_in_8bit or model_args.load_in_4bit):
        return None
    if model_args.load_in_4bit and not torch.cuda.is_available():
        raise SystemExit("load_in_4bit: on a CPU 4-bit layers lose gradients silently; use load_in_8bit or a GPU.")
    kept = ["model.vision_tower", "model.aux_vision_tower", "model.multi_modal_projector", "lm_head"]
    return BitsAndBytesConfig(
        load_in_8bit=model_args.load_in_8bit,
        load_in_4bit=model_args.load_in_4bit,
        llm_int8_skip_modules=kept,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def lora_config(model_args: ModelConfig, processor: LiteGPTProcessor) -> LoraConfig:
    """LoRA on the language model's attention; projector and new tokens' embeddings are trained in full."""
    return LoraConfig(
        r=model_args.lora_r,
        lora_alpha=model_args.lora_alpha,
        lora_dropout=model_args.lora_dropout,
        target_modules=model_args.lora_target_modules or LORA_TARGET_MODULES,
        modules_to_save=["multi_modal_projector"],
        trainable_token_indices={"embed_tokens": processor.tokenizer.convert_tokens_to_ids(LITEGPT_TOKENS)},
        task_type="CAUSAL_LM",
    )


def trained_weights(data_args: DataArguments, model_args: ModelConfig) -> str:
    """What the model card says was trained."""
    rest = "LoRA on the language model, its new tokens" if model_args.use_peft else "language model"
    return f"projector, {rest}{', towers' if data_args.train_towers else ''}"


def save(model: torch.nn.Module, processor: LiteGPTProcessor, model_args: ModelConfig, output_dir: str) -> None:
    if isinstance(model, PeftModel):
        model.save_pretrained(f"{output_dir}/adapter")
        card = adapter_card(model.config, processor, model.peft_config["default"])
        write_text(Path(output_dir, "adapter", "README.md"), card)
        # A quantized base cannot be merged, so the adapter is merged into the checkpoint that it started from.
        base, _ = load_checkpoint(model_args.model_name_or_path, dtype=model_args.dtype)
        base.config.training_record = model.config.training_record
        model = PeftModel.from_pretrained(base, f"{output_dir}/adapter").merge_and_unload()
    save_checkpoint(model, processor, f"{output_dir}/checkpoint")


if __name__ == "__main__":
    main(*TrlParser((DataArguments, SFTConfig, ModelConfig)).parse_args_and_config())
