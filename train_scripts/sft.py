"""Supervised fine-tuning of a LiteGPT checkpoint on a data set's findings and diagnoses, with TRL's `SFTTrainer`.

Stage one, then stage two continued from it, on a CPU or one GPU, and on several:

    litegpt train --config tiny_stage1 --model_name_or_path outputs/tiny/towers/checkpoint \\
        --data_dir outputs/demo/phantoms --output_dir outputs/tiny/stage1
    litegpt train --config tiny_stage2 --model_name_or_path outputs/tiny/stage1/checkpoint \\
        --data_dir outputs/demo/phantoms --output_dir outputs/tiny/stage2
    accelerate launch train_scripts/sft.py --config tiny_stage2 ...    # installed: -m litegpt.train_scripts.sft

The paper's recipe is `litegpt.yaml` in the same folder; it and its baselines' open with the commands that use them.
Every option of a YAML is a flag too. `OUTPUT_DIR/checkpoint` is ready for the Hub; with LoRA (`--use_peft`)
`OUTPUT_DIR/adapter` holds the adapter, and the checkpoint is the merged model. `--model_name_or_path` may be an
adapter: with `--use_peft` its LoRA is trained further, without it the model that it is merged into. The same command
resumes where an interrupted run stopped.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig, PeftConfig, PeftModel
from transformers import BitsAndBytesConfig, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled, is_fsdp_enabled, unset_hf_deepspeed_config
from trl import ModelConfig, SFTConfig

from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.joined_rows import has_other_labels, joined_rows
from litegpt.datasets_scripts.pseudo_boxes import coverage_text, with_pseudo_boxes
from litegpt.datasets_scripts.rows import check_labels, load_rows
from litegpt.datasets_scripts.template_words import with_template_words
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES, add_adapter, save_adapter
from litegpt.modeling_litegpt.checkpoints import base_of_adapter, load_checkpoint, load_processor, save_checkpoint
from litegpt.modeling_litegpt.model_card import add_training, training_entry
from litegpt.modeling_litegpt.new_tasks import add_tasks, grow_to
from litegpt.processing.pipeline_litegpt import was_trained
from litegpt.processing.processing_litegpt import LITEGPT_TOKENS, LiteGPTProcessor
from litegpt.processing.tasks import TASKS
from litegpt.train_scripts.arguments import DataArguments, ExampleArguments, RecipeArguments
from litegpt.train_scripts.examples import ChatCollator, training_examples
from litegpt.train_scripts.patch_features import map_patch_features, write_patch_features
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.resume import checkpoint_to_resume
from litegpt.train_scripts.tower_tasks.detection import Detection, boxes_are_known
from litegpt.train_scripts.trainer import LiteGPTTrainer
from litegpt.train_scripts.training_parser import TrainingParser
from litegpt.train_scripts.validation import ValidationAnswers
from litegpt.train_scripts.views import Movement, views_of


@program
def main(
    data_args: DataArguments,
    example_args: ExampleArguments,
    recipe_args: RecipeArguments,
    training_args: SFTConfig,
    model_args: ModelConfig,
) -> None:
    if data_args.cache_features and data_args.train_towers:
        raise Refusal("cache_features: the features of towers that are trained change, so they can't be cached.")
    if data_args.cache_features and is_deepspeed_zero3_enabled():
        raise Refusal("cache_features: under ZeRO-3 no process has the towers' whole weights; use FSDP2.")
    if model_args.use_peft and is_deepspeed_zero3_enabled():
        raise Refusal("use_peft: LoRA is trained with DDP or FSDP2, not with ZeRO-3.")
    if (model_args.load_in_8bit or model_args.load_in_4bit) and is_fsdp_enabled():
        raise Refusal("load_in_8bit, load_in_4bit: quantized weights can't be sharded over processes; use DDP.")
    if recipe_args.detector_loss_weight and max(training_args.world_size, training_args.n_gpu) > 1:
        raise Refusal(
            "detector_loss_weight: the detector is trained in one process on one GPU; pretrain_boxes.py takes several."
        )
    if data_args.total_batch_size is not None:
        set_accumulation(data_args.total_batch_size, training_args)
    train(data_args, example_args, recipe_args, training_args, model_args)
    if model_args.use_peft and training_args.process_index == 0:
        # The base is loaded again as it is stored, because a quantized one cannot be merged. The trained model is gone
        # by now: memory need not hold both.
        gc.collect()
        with refuse_bad_input():
            merged, processor = load_checkpoint(f"{training_args.output_dir}/adapter", dtype="auto")
            save_checkpoint(merged, processor, f"{training_args.output_dir}/checkpoint")


def train(
    data_args: DataArguments,
    example_args: ExampleArguments,
    recipe_args: RecipeArguments,
    training_args: SFTConfig,
    model_args: ModelConfig,
) -> None:
    """Trains, and writes `OUTPUT_DIR/checkpoint` or, of a model with LoRA, `OUTPUT_DIR/adapter`."""
    set_seed(training_args.seed)  # fresh LoRA is drawn before the trainer would set it
    with refuse_bad_input():
        model, processor = model_to_train(
            data_args, model_args, bool(recipe_args.detector_loss_weight), example_args.tasks
        )
    base = model.get_base_model() if model_args.use_peft else model
    # Of an adapter the record is known once it is loaded.
    is_told = base.config.num_candidate_tokens and not recipe_args.detector_loss_weight
    if is_told and not was_trained(base.config, "detector"):
        raise Refusal(
            "The language model would be told of the boxes of a detector that was never trained: first "
            "pretrain_boxes.py, or detector_loss_weight."
        )

    cache_dir = data_args.training_cache_dir or f"{training_args.output_dir}/cache"
    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_args.main_process_first(desc="preparing data"):
        parts = rows_to_train(data_args, processor, example_args.tasks)
        rows = parts.joined()
        if any(TASKS[task].kind.has_boxes for task in example_args.tasks):
            processor.box_order = example_args.box_order  # tells what an answer may still name
        movement = (example_args.view_strength, example_args.max_gamma)
        training_rows = rows if parts.validation is None else rows.select(range(len(rows) - len(parts.validation)))
        views = views_of(training_rows, example_args.augmented_views, training_args.seed, *movement)
        num_training_views = len(views)
        views += [(row, Movement()) for row in range(len(training_rows), len(rows))]
        store = RadiographStore(rows, processor.tower_image_processors, cache_dir)
        feature_file = None
        if data_args.cache_features and training_args.should_save:  # FSDP2 gives the other processes no weights yet
            feature_file = write_patch_features(base.model, store, views, cache_dir)
    features = None
    if data_args.cache_features:
        feature_file = broadcast_object_list([feature_file])[0]
        features = map_patch_features(feature_file, base.model, len(views))
    told = rows
    if data_args.template_words:
        with refuse_bad_input(), training_args.main_process_first(desc="template words"):
            told = parts.with_template_words().joined()  # pictures and features are those of `rows`
    with_lengths = training_args.train_sampling_strategy == "group_by_length"
    examples = training_examples(told, views, range(num_training_views), example_args, processor, with_lengths)
    trained = trained_weights(data_args, model_args, bool(recipe_args.detector_loss_weight))
    entries = [
        training_entry("sft.py", data_dir, count, example_args.tasks, trained, training_args)
        for data_dir, count in parts.radiographs({views[view][0] for view in examples["view"]}).items()
    ]
    boxes = None
    if recipe_args.detector_loss_weight:
        truths = Detection(processor.finding_labels, max(model.config.tower_grids)).truths(rows)
        known = torch.from_numpy(truths.known & boxes_are_known(rows)[:, None]).float()
        boxes = rows["findings"][:], known
    validation_examples = None
    if data_args.validation_split is not None:
        validation_examples = training_examples(
            told, views, range(num_training_views, len(views)), example_args, processor, with_lengths
        )

    trainer = LiteGPTTrainer(
        recipe=recipe_args,
        task_weights=example_args.task_weights,
        model=model,
        args=training_args,
        train_dataset=examples,
        eval_dataset=validation_examples,
        processing_class=processor,
        data_collator=ChatCollator(processor, store, views, features, boxes),
    )
    if data_args.validation_split is not None:
        trainer.add_callback(ValidationAnswers(trainer, parts.validation, processor, example_args.tasks))
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(training_args))
    with trainer.ending_in_one_sentence():
        # Every process takes part in gathering weights that are sharded over processes.
        state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        unset_hf_deepspeed_config()  # with ZeRO-3 every model that is made until here is sharded
        if trainer.is_world_process_zero():
            model = trainer.accelerator.unwrap_model(trainer.model)
            for entry in entries:
                add_training(model.config, entry, trainer.state.global_step)
            if isinstance(model, PeftModel):
                save_adapter(model, processor, f"{training_args.output_dir}/adapter", state_dict)
            else:
                save_checkpoint(model, processor, f"{training_args.output_dir}/checkpoint", state_dict)


def set_accumulation(total_batch_size: int, training_args: SFTConfig) -> None:
    """Sets the batches that are accumulated for a step, so that all processes together see `total_batch_size`."""
    per_device, processes = training_args.per_device_train_batch_size, training_args.world_size
    steps, rest = divmod(total_batch_size, per_device * processes)
    if rest or training_args.gradient_accumulation_steps not in (1, steps):
        raise Refusal(
            f"total_batch_size: {total_batch_size} is not per_device_train_batch_size {per_device} x {processes} "
            "processes x a whole number of gradient_accumulation_steps, or not x the number that was given."
        )
    training_args.gradient_accumulation_steps = steps


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a training.

    Attributes:
        own: those to train on, of `data_dir`.
        others: by their folder those of further data sets.
        validation: those that are not trained on, where there are any.
    """

    data_dir: str
    own: Dataset
    others: dict[str, Dataset]
    validation: Dataset | None

    def joined(self) -> Dataset:
        """All in one table, the validation rows last: one store of radiographs, one file of features."""
        train = joined_rows(self.own, list(self.others.values()))
        return train if self.validation is None else concatenate_datasets([train, self.validation])

    def with_template_words(self) -> "TrainingRows":
        """The same; those of `data_dir` have template words."""
        validation = None if self.validation is None else with_template_words(self.validation)
        return replace(self, own=with_template_words(self.own), validation=validation)

    def radiographs(self, numbers: Collection[int]) -> dict[str, int]:
        """By data set how many of the rows with these numbers are its."""
        counts, start = {}, 0
        for data_dir, rows in {self.data_dir: self.own, **self.others}.items():
            counts[data_dir] = sum(start <= number < start + len(rows) for number in numbers)
            start += len(rows)
        return counts


def rows_to_train(data_args: DataArguments, processor: LiteGPTProcessor, tasks: Sequence[str]) -> TrainingRows:
    """The rows of the training split, of further data sets, and of the validation split where it is given.

    Raises:
        OSError, ValueError: they cannot be read, have other labels than the checkpoint, or it does not know a task.
    """
    place = (data_args.cache_dir, data_args.num_proc)
    own = load_rows(data_args.data_dir, data_args.train_split, *place)
    check_labels(own, processor, None if data_args.template_words else tasks)
    if data_args.pseudo_boxes is not None:
        own, covered = with_pseudo_boxes(own, data_args.pseudo_boxes)
        print(f"{data_args.pseudo_boxes}: {coverage_text(covered)}")
    others = {data_dir: load_rows(data_dir, "train", *place) for data_dir in data_args.word_data_dirs}
    for data_dir, rows in others.items():
        if has_other_labels(own, rows):
            print(f"{data_dir}: its labels are not the checkpoint's: its findings and diagnoses are not used.")
    validation = data_args.validation_split and load_rows(data_args.data_dir, data_args.validation_split, *place)
    for task in tasks:
        if task not in processor.instructions:
            processor.prompt(task)  # a ValueError, which names those that it knows
    return TrainingRows(data_args.data_dir, own, others, validation)


def model_to_train(
    data_args: DataArguments, model_args: ModelConfig, train_detector: bool = False, tasks: Sequence[str] = ()
) -> tuple[LiteGPTForConditionalGeneration | PeftModel, LiteGPTProcessor]:
    """The model, its towers and detector frozen or not, with LoRA where asked for: fresh, or that of the adapter.

    Tasks that the checkpoint does not know are added to it.
    """
    quantization = quantization_of_language_model(model_args)
    adapter = base = None
    if model_args.use_peft:
        base = base_of_adapter(model_args.model_name_or_path, model_args.model_revision)
        adapter = None if base is None else model_args.model_name_or_path
    model, processor = load_checkpoint(
        base or model_args.model_name_or_path,
        revision=None if base else model_args.model_revision,
        dtype=model_args.dtype,
        attn_implementation=model_args.attn_implementation,
        quantization_config=quantization,
    )
    if adapter is not None:  # an earlier stage may have added tasks to its base
        base_tokenizer, processor = processor.tokenizer, load_processor(adapter, model_args.model_revision)
        grow_to(model, base_tokenizer, processor.tokenizer)
    if is_deepspeed_zero3_enabled() and not set(tasks) <= processor.instructions.keys():
        raise Refusal(
            "tasks: under ZeRO-3 no process has the whole embeddings, to which new tasks are added; use FSDP2."
        )
    if added := add_tasks(model, processor, tasks):
        print(f"{model_args.model_name_or_path} did not know all tasks; added: {added}.")
    for tower in model.model.towers:
        tower.requires_grad_(data_args.train_towers)
    if model.model.detector is not None:
        model.model.detector.requires_grad_(train_detector)
    elif train_detector:
        raise Refusal("detector_loss_weight: this checkpoint has no detector; pretrain_boxes.py --detector adds one.")
    if not model_args.use_peft:
        return model, processor
    in_full = [name for name in ("candidate_tokens",) if getattr(model.model, name) is not None]
    in_full += ["vision_tower", "aux_vision_tower"] if data_args.train_towers else []
    in_full += ["detector"] if train_detector else []
    # What an earlier stage trained in full is in its adapter: it goes on with it, and stays as it is.
    earlier = () if adapter is None else PeftConfig.from_pretrained(adapter).modules_to_save or ()
    kept = [
        name for name in ("vision_tower", "aux_vision_tower", "detector") if name in earlier and name not in in_full
    ]
    lora = lora_config(model_args, processor, [*in_full, *kept])
    # Steps of 1e-5 are lost in bfloat16.
    model = add_adapter(model, lora, adapter, model_args.model_revision, trained_dtype=torch.float32)
    for name in kept:
        getattr(model.get_base_model().model, name).requires_grad_(False)
    return model, processor


def quantization_of_language_model(model_args: ModelConfig) -> BitsAndBytesConfig | None:
    """8 or 4 bit, which `LiteGPTForConditionalGeneration.from_pretrained` keeps to the language model."""
    if not (model_args.load_in_8bit or model_args.load_in_4bit):
        return None
    if model_args.load_in_4bit and not torch.cuda.is_available():
        raise Refusal("load_in_4bit: on a CPU 4-bit layers lose gradients silently; use load_in_8bit or a GPU.")
    if not model_args.use_peft:
        raise Refusal("load_in_8bit, load_in_4bit: quantized weights can't be trained; --use_peft trains LoRA.")
    return BitsAndBytesConfig(
        load_in_8bit=model_args.load_in_8bit,
        load_in_4bit=model_args.load_in_4bit,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_type=model_args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=model_args.use_bnb_nested_quant,
        bnb_4bit_quant_storage=model_args.bnb_4bit_quant_storage,
    )


def lora_config(model_args: ModelConfig, processor: LiteGPTProcessor, in_full: Sequence[str] = ()) -> LoraConfig:
    """LoRA on the language model's attention; trained in full are projector, new tokens' embeddings and `in_full`."""
    known = processor.tokenizer.get_vocab()
    return LoraConfig(
        r=model_args.lora_r,
        lora_alpha=model_args.lora_alpha,
        lora_dropout=model_args.lora_dropout,
        use_rslora=model_args.use_rslora,
        use_dora=model_args.use_dora,
        target_modules=model_args.lora_target_modules or LORA_TARGET_MODULES,
        target_parameters=model_args.lora_target_parameters,
        modules_to_save=["multi_modal_projector", *in_full] + (model_args.lora_modules_to_save or []),
        trainable_token_indices={"embed_tokens": [known[token] for token in LITEGPT_TOKENS if token in known]},
        task_type=model_args.lora_task_type,
    )


def trained_weights(data_args: DataArguments, model_args: ModelConfig, detector: bool = False) -> str:
    """What the model card says was trained."""
    rest = "LoRA on the language model, its new tokens" if model_args.use_peft else "language model"
    boxes = "" if data_args.pseudo_boxes is None else "; on boxes that a classifier's maps drew"
    boxes += "; on template words" if data_args.template_words else ""
    towers = ", towers" if data_args.train_towers else ""
    return f"projector, {rest}{towers}{', detector' if detector else ''}{boxes}"


def argument_parser() -> TrainingParser:
    return TrainingParser(
        (DataArguments, ExampleArguments, RecipeArguments, SFTConfig, ModelConfig),
        usage="accelerate launch train_scripts/sft.py --config FILE.yaml [--OPTION VALUE ...]",
        description=__doc__,
    )


if __name__ == "__main__":
    main(*argument_parser().parse())
