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

import torch
from datasets import concatenate_datasets
from peft import LoraConfig, PeftModel
from transformers import BitsAndBytesConfig
from trl import ModelConfig, SFTConfig, TrlParser

from processing.processing_litegpt import LITEGPT_TOKENS, LiteGPTProcessor
from train_scripts.checkpoint import LORA_TARGET_MODULES, checkpoint_to_resume, load_checkpoint, save_checkpoint
from train_scripts.examples import ChatCollator, ExampleArguments, example_weights, training_examples, views_of
from train_scripts.files import refuse_bad_input, write_text
from train_scripts.model_card import adapter_card, add_training, training_entry
from train_scripts.patch_features import patch_feature_file
from train_scripts.radiograph_store import Movement, RadiographStore
from train_scripts.rows import check_labels, load_rows
from train_scripts.trainer import LiteGPTTrainer, RecipeArguments
from train_scripts.validation import ValidationAnswers


@dataclass
class DataArguments:
    data_dir: str = field(metadata={"help": "A release in VinDr-CXR's layout, or a prepared data set."})
    train_split: str = field(default="train", metadata={"help": "The split to train on, or a slice: train[:-100]."})
    validation_split: str | None = field(
        default=None,
        metadata={
            "help": "A split or slice that is not trained on, such as validation[:64] or train[-100:]. Its loss and "
            "the answers to it are shown as --eval_strategy says."
        },
    )
    train_towers: bool = field(default=False, metadata={"help": "Train the towers too; by default they are frozen."})
    cache_features: bool = field(
        default=False, metadata={"help": "Compute the frozen towers' features once, before training."}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Prepared data; the library's own cache by default."}
    )
    training_cache_dir: str | None = field(
        default=None, metadata={"help": "Radiographs and features at the towers' size; OUTPUT_DIR/cache by default."}
    )
    num_proc: int = field(default=1, metadata={"help": "Processes that read radiographs."})


def main(
    data_args: DataArguments,
    example_args: ExampleArguments,
    recipe_args: RecipeArguments,
    training_args: SFTConfig,
    model_args: ModelConfig,
) -> None:
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
        splits = [split for split in (data_args.train_split, data_args.validation_split) if split is not None]
        parts = [load_rows(data_args.data_dir, split, data_args.cache_dir, data_args.num_proc) for split in splits]
        rows = concatenate_datasets(parts)  # one store, one file of features
        check_labels(rows, processor)
        trained = trained_weights(data_args, model_args)
        entry = training_entry("sft.py", data_args.data_dir, len(parts[0]), example_args.tasks, trained, training_args)
        views = views_of(parts[0], example_args.augmented_views, training_args.seed)
        num_training_views = len(views)
        views += [(row, Movement()) for row in range(len(parts[0]), len(rows))]
        store = RadiographStore(rows, processor.tower_image_processors, cache_dir)
        features = patch_feature_file(model.model, store, views, cache_dir) if data_args.cache_features else None
    examples = training_examples(rows, views, range(num_training_views), example_args, processor)
    validation_examples = None
    if data_args.validation_split is not None:
        validation_examples = training_examples(
            rows, views, range(num_training_views, len(views)), example_args, processor
        )

    # The collator does what SFTTrainer would do with a vision data set, but never truncates: that would cut images.
    training_args.dataset_kwargs = {"skip_prepare_dataset": True}
    training_args.remove_unused_columns = False
    training_args.max_length = None
    trainer = LiteGPTTrainer(
        recipe=recipe_args,
        example_weights=example_weights(examples, example_args),
        model=model,
        args=training_args,
        train_dataset=examples,
        eval_dataset=validation_examples,
        processing_class=processor,
        data_collator=ChatCollator(processor, store, views, features),
        peft_config=lora_config(model_args, processor) if model_args.use_peft else None,
    )
    if data_args.validation_split is not None:
        trainer.add_callback(ValidationAnswers(trainer, parts[1], processor, example_args.tasks))
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(training_args))
    # Every process takes part in gathering weights that are sharded over processes.
    state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        add_training(model.config, entry, trainer.state.global_step)
        save(model, state_dict, processor, model_args, training_args.output_dir)


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


def save(
    model: torch.nn.Module,
    state_dict: dict[str, torch.Tensor],
    processor: LiteGPTProcessor,
    model_args: ModelConfig,
    output_dir: str,
) -> None:
    """Writes `OUTPUT_DIR/checkpoint` and, for LoRA, `OUTPUT_DIR/adapter`, from the whole (not sharded) state dict."""
    if isinstance(model, PeftModel):
        model.save_pretrained(f"{output_dir}/adapter", state_dict=state_dict)
        card = adapter_card(model.config, processor, model.peft_config["default"])
        write_text(Path(output_dir, "adapter", "README.md"), card)
        # A quantized base cannot be merged, so the adapter is merged into the checkpoint that it started from.
        base, _ = load_checkpoint(model_args.model_name_or_path, dtype=model_args.dtype)
        base.config.training_record = model.config.training_record
        model = PeftModel.from_pretrained(base, f"{output_dir}/adapter").merge_and_unload()
        state_dict = None
    save_checkpoint(model, processor, f"{output_dir}/checkpoint", state_dict)


if __name__ == "__main__":
    main(
        *TrlParser((DataArguments, ExampleArguments, RecipeArguments, SFTConfig, ModelConfig)).parse_args_and_config()
    )
