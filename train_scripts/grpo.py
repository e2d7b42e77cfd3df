"""Reinforcement of a trained LiteGPT checkpoint by rewards that can be verified, with TRL's `GRPOTrainer`.

Several answers are sampled to each radiograph, all in the answer language; what is right in them, by the data set's
own boxes, is made likelier, what is wrong unlikelier:

    litegpt grpo --config tiny_grpo --model_name_or_path outputs/demo/stage1/checkpoint \\
        --data_dir outputs/demo/phantoms --output_dir outputs/tiny/grpo
    accelerate launch train_scripts/grpo.py --config litegpt_grpo ...    # installed: -m litegpt.train_scripts.grpo

Rewards are chosen by `reward_functions` and weighed by `reward_weights` (`train_scripts/rewards/`, a file each). LoRA,
data, caches and what is written are those of `litegpt train`: `OUTPUT_DIR/checkpoint` is ready for the Hub, with
`--use_peft` beside `OUTPUT_DIR/adapter`. TensorBoard shows rewards and the last answers, drawn. The same command
resumes where an interrupted run stopped. docs/reinforce.md says what it was worth.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import copy
import gc
import warnings
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import set_seed
from transformers.integrations import is_deepspeed_zero3_enabled, is_fsdp_enabled
from trl import GRPOConfig, GRPOTrainer, ModelConfig
from trl.trainer import utils as trl_utils

from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.modeling_litegpt import LiteGPTModel
from litegpt.modeling_litegpt.adapters import save_adapter
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.modeling_litegpt.model_card import add_training, training_entry
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.tasks import FINDINGS, TASKS
from litegpt.train_scripts.arguments import DataArguments, RolloutArguments
from litegpt.train_scripts.prompts import PLAIN, PromptCollator, drawn_prompts, known_prompts
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.resume import checkpoint_to_resume
from litegpt.train_scripts.rewards.answer_format import answer_format
from litegpt.train_scripts.rewards.box_f1 import box_f1
from litegpt.train_scripts.rewards.candidate_scores import candidate_scores
from litegpt.train_scripts.rollouts import RolloutDrawings, Rollouts
from litegpt.train_scripts.sft import model_to_train, rows_to_train, trained_weights
from litegpt.train_scripts.trainer import SteadyTrainer, refuse_options
from litegpt.train_scripts.training_parser import TrainingParser
from litegpt.train_scripts.validation import ValidationAnswers

REWARDS = {reward.__name__: reward for reward in (box_f1, answer_format, candidate_scores)}
REFERENCE = "ref"  # what TRL calls the copy of an adapter that `beta` holds the trained one to
# Options of TRL that do nothing here: the rollouts are ours, the model is loaded, its prompts are the checkpoint's.
UNUSED_OPTIONS = (
    "chat_template_kwargs",
    "model_init_kwargs",
    "off_policy_mask_threshold",
    "pad_to_multiple_of",
    "shuffle_dataset",
    "sync_ref_model",
    "use_liger_kernel",
    "use_transformers_continuous_batching",
    "use_vllm",
)


@program
def main(
    data_args: DataArguments, rollout_args: RolloutArguments, training_args: GRPOConfig, model_args: ModelConfig
) -> None:
    refuse_what_does_not_fit(data_args, rollout_args, training_args)
    train(data_args, rollout_args, training_args, model_args)
    if model_args.use_peft and training_args.process_index == 0:
        gc.collect()  # the base is loaded again as it is stored, because a quantized one cannot be merged
        with refuse_bad_input():
            merged, processor = load_checkpoint(f"{training_args.output_dir}/adapter", dtype="auto")
            save_checkpoint(merged, processor, f"{training_args.output_dir}/checkpoint")


def train(
    data_args: DataArguments, rollout_args: RolloutArguments, training_args: GRPOConfig, model_args: ModelConfig
) -> None:
    """Trains, and writes `OUTPUT_DIR/checkpoint` or, of a model with LoRA, `OUTPUT_DIR/adapter`."""
    set_seed(training_args.seed)  # fresh LoRA is drawn before the trainer would set it
    with refuse_bad_input():
        model, processor = model_to_train(data_args, model_args)
    cache_dir = data_args.training_cache_dir or f"{training_args.output_dir}/cache"
    # The main process writes the files, the others find them.
    with refuse_bad_input(), training_args.main_process_first(desc="preparing data"):
        if data_args.word_data_dirs or data_args.template_words:
            raise Refusal("word_data_dirs, template_words: what is reinforced are boxes, which words do not change.")
        parts = rows_to_train(data_args, processor, rollout_args.tasks)
        rows = parts.joined()
        for task in rollout_args.tasks:
            least = processor.answer_grammar.least_room(task)
            if training_args.max_completion_length < least:
                raise Refusal(f"max_completion_length: an answer to [{task}] may take {least} tokens.")
        store = RadiographStore(rows, processor.tower_image_processors, cache_dir)
        prompts = drawn_prompts(parts.own, prompts_of_run(training_args), rollout_args, processor, training_args.seed)
        validation_prompts = None
        if data_args.validation_split is not None:
            known = known_prompts(parts.validation, rollout_args.tasks, processor)
            columns = {"row": [len(parts.own) + row for row, _ in known], "task": [task for _, task in known]}
            validation_prompts = Dataset.from_dict({**columns, "draw": [PLAIN] * len(known)})
    radiographs = len(set(prompts["row"]))
    rewards = " and ".join(rollout_args.reward_functions)
    trained = f"{trained_weights(data_args, model_args)}; reinforced by {rewards}"
    entry = training_entry("grpo.py", data_args.data_dir, radiographs, rollout_args.tasks, trained, training_args)

    # TRL hands on `pixel_values` alone; the model parts them again.
    processor.pack_pixel_values = processor.num_towers == 2
    rollouts = Rollouts(processor, with_scores=candidate_scores.__name__ in rollout_args.reward_functions)
    trainer = LiteGPTRolloutTrainer(
        model=model,
        reward_funcs=[REWARDS[name] for name in rollout_args.reward_functions],
        args=training_args,
        train_dataset=prompts,
        eval_dataset=validation_prompts,
        processing_class=processor,
        rollout_func=rollouts,
    )
    # TRL gives its examples to nobody; ours are numbers until a batch is made of them.
    trainer.data_collator = PromptCollator(rows, store, processor, rollout_args.moved_share, training_args.seed)
    trainer.add_callback(RolloutDrawings(trainer, rollouts, rollout_args.rollouts_drawn))
    if data_args.validation_split is not None:
        trainer.add_callback(ValidationAnswers(trainer, parts.validation, processor, rollout_args.tasks))
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(training_args))
    with trainer.ending_in_one_sentence():
        if trainer.is_world_process_zero():
            processor.pack_pixel_values = False
            save(trainer, processor, entry)


def save(trainer: "LiteGPTRolloutTrainer", processor: LiteGPTProcessor, entry: dict[str, Any]) -> None:
    """Writes the adapter or the checkpoint of a trained model, which tells of this training."""
    model, output_dir = trainer.accelerator.unwrap_model(trainer.model), trainer.args.output_dir
    add_training(model.config, entry, trainer.state.global_step)
    if isinstance(model, PeftModel):
        if REFERENCE in model.peft_config:
            model.delete_adapter(REFERENCE)
        save_adapter(model, processor, f"{output_dir}/adapter")
    else:
        save_checkpoint(model, processor, f"{output_dir}/checkpoint", model.state_dict())


class LiteGPTRolloutTrainer(SteadyTrainer, GRPOTrainer):
    """`GRPOTrainer` of a LiteGPT model, whose prompts come in the order of its data set.

    With `beta` the reference of a model without LoRA is the model as it is given; TRL would load the one of its path,
    which of a merged adapter is the base.

    Args:
        kwargs: `GRPOTrainer`'s.
    """

    def __init__(self, **kwargs: Any):
        model, arguments = kwargs["model"], kwargs["args"]
        refuse_options(arguments, UNUSED_OPTIONS, GRPOConfig)
        arguments.shuffle_dataset = False
        beta, needs_reference = arguments.beta, arguments.beta != 0 and not isinstance(model, PeftModel)
        reference = copy.deepcopy(model).requires_grad_(False) if needs_reference else None
        if needs_reference:
            arguments.beta = 0.0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
            super().__init__(**kwargs)
        for each in (model, reference):
            base = each.get_base_model() if isinstance(each, PeftModel) else each
            if base is not None and not any(p.requires_grad for t in base.model.towers for p in t.parameters()):
                base.model.register_forward_pre_hook(seen_once, with_kwargs=True)
        if reference is not None:
            arguments.beta = self.beta = beta
            if hasattr(trl_utils, "add_fused_lm_head"):  # TRL 1.14, the last for Python 3.10, does without
                trl_utils.add_fused_lm_head(reference, temperature=self.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)


def seen_once(
    model: LiteGPTModel, inputs: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A forward pre-hook: frozen towers see each radiograph of a batch once, however many answers there are to it."""
    pixels = options.get("pixel_values")
    if pixels is None:
        return inputs, options
    places: list[int] = []  # of each row's radiograph among the distinct ones
    firsts: dict[float, list[int]] = {}  # sum of the pixels -> rows that have it and differ
    distinct: list[int] = []
    for row, total in enumerate(pixels.sum(dim=(1, 2, 3)).tolist()):
        same = [first for first in firsts.setdefault(total, []) if torch.equal(pixels[first], pixels[row])]
        if not same:
            firsts[total].append(row)
            distinct.append(row)
        places.append(distinct.index(same[0] if same else row))
    features = model.get_patch_features(pixels[distinct])[places]
    return inputs, {**options, "pixel_values": None, "patch_features": features}


def prompts_of_run(training_args: GRPOConfig) -> int:
    """How many prompts all steps of a run ask; each is answered `num_generations` times."""
    batches = training_args.max_steps * training_args.gradient_accumulation_steps
    samplings = -(-batches // (training_args.steps_per_generation * training_args.num_iterations))
    return samplings * training_args.generation_batch_size // training_args.num_generations


def refuse_what_does_not_fit(
    data_args: DataArguments, rollout_args: RolloutArguments, training_args: GRPOConfig
) -> None:
    """Ends the program where options do not go together."""
    if data_args.cache_features:
        raise Refusal("cache_features: TRL's GRPOTrainer hands on pixels alone.")
    if data_args.template_words:
        raise Refusal("template_words: no task about words is asked here.")
    if data_args.total_batch_size is not None:
        raise Refusal("total_batch_size: here it is generation_batch_size, sampled answers of all processes.")
    if is_fsdp_enabled() or is_deepspeed_zero3_enabled():
        raise Refusal("Weights that are sharded over processes (FSDP2, ZeRO-3) do not sample answers here; use DDP.")
    if training_args.max_steps <= 0:
        raise Refusal("max_steps: say how many steps; prompts are drawn for all of them before the first.")
    for task in rollout_args.tasks:
        if task not in TASKS or TASKS[task].kind is not FINDINGS:
            boxed = [name for name, known in TASKS.items() if known.kind is FINDINGS]
            raise Refusal(f"tasks: {task} has no answer with boxes; {', '.join(boxed)} have.")
    for name in rollout_args.reward_functions:
        if name not in REWARDS:
            raise Refusal(f"reward_functions: there is no {name}; there are {', '.join(REWARDS)}.")
    weights = training_args.reward_weights
    if weights is not None and len(weights) != len(rollout_args.reward_functions):
        raise Refusal(f"reward_weights: {len(weights)} for {len(rollout_args.reward_functions)} reward_functions.")
    per_sampling = training_args.steps_per_generation * training_args.num_iterations
    step = training_args.gradient_accumulation_steps
    if training_args.save_strategy == "steps" and training_args.save_steps * step % per_sampling:
        raise Refusal("save_steps: a run resumes where answers are sampled, every steps_per_generation batches.")


def argument_parser() -> TrainingParser:
    return TrainingParser(
        (DataArguments, RolloutArguments, GRPOConfig, ModelConfig),
        usage="accelerate launch train_scripts/grpo.py --config FILE.yaml [--OPTION VALUE ...]",
        description=__doc__,
    )


if __name__ == "__main__":
    main(*argument_parser().parse())
