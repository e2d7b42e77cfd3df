"""The YAML of every row of the paper's tables, as `sft.py` reads and follows it, at a tiny size."""

import json
import math
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import ModelConfig, SFTConfig, TrlParser

from litegpt import modeling_litegpt
from litegpt.common.programs import Refusal
from litegpt.evaluation_scripts.arguments import EvaluationArguments
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.arguments import ConversionArguments
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, new_processor, save_checkpoint
from litegpt.processing.processing_litegpt import LITEGPT_TOKENS
from litegpt.train_scripts import sft
from litegpt.train_scripts.arguments import ExampleArguments, RecipeArguments
from litegpt.train_scripts.trainer import linear_warmup_cosine_lr

CONFIGS = Path(sft.__file__).with_name("configs")
ARCHITECTURES = Path(modeling_litegpt.__file__).with_name("configs")
ROWS = ["litegpt", "biomedclip", "pubmedclip", "minigpt_v2", "litegpt_grounding"]
STEPS = 3
SMALL_TOWER = {
    "image_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
ARGUMENTS = {
    "train_scripts/sft.py": (sft.DataArguments, ExampleArguments, RecipeArguments, SFTConfig, ModelConfig),
    "evaluation_scripts/evaluate_litegpt.py": (EvaluationArguments,),
    "modeling_litegpt/convert_weights_to_hf.py": (ConversionArguments,),
}


def commands(row: str) -> list[list[str]]:
    """The commands that a YAML opens with, each as [program, option, ...]."""
    head = "".join(re.findall(r"^#   ? ?(.*\n)", (CONFIGS / f"{row}.yaml").read_text(), flags=re.M))
    lines = re.findall(r"^(?:python|accelerate launch) (.*)$", head.replace("\\\n", " "), flags=re.M)
    return [shlex.split(line) for line in lines]


def parsed(command: list[str]):
    return TrlParser(ARGUMENTS[command[0]]).parse_args_and_config(command[1:], fail_with_unknown_args=True)


@pytest.mark.parametrize("row", ROWS)
def test_the_commands_that_a_yaml_opens_with_are_understood_and_fit_together(row, monkeypatch):
    monkeypatch.chdir(CONFIGS.parents[1])
    # bf16 wants a GPU, or to be told that there is none.
    cpu = {"train_scripts/sft.py": ["--use_cpu", "true"]}
    conversion, *runs = [(command[0], parsed([*command, *cpu.get(command[0], [])])) for command in commands(row)]
    weights = conversion[1][0].output_dir
    assert conversion[1][0].architecture == row.removesuffix("_grounding") and not conversion[1][0].merge_lora
    stages = [run for program, run in runs if program == "train_scripts/sft.py"]
    evaluations = [run[0] for program, run in runs if program == "evaluation_scripts/evaluate_litegpt.py"]
    start, starts = f"{weights}/adapter", []
    for _, examples, _, training, model in stages:
        assert model.model_name_or_path == start
        start = f"{training.output_dir}/adapter"
        starts.append((examples.tasks, examples.with_findings_only))
    finding_task = "grounding" if row == "litegpt_grounding" else "identify"
    assert starts == [([finding_task], True), (["vqa"], False)][: len(stages)]
    assert len(stages) == (1 if row == "litegpt_grounding" else 2)
    for (_, examples, _, training, _), evaluation in zip(stages, evaluations, strict=True):
        assert evaluation.tasks == examples.tasks
        assert evaluation.model_name_or_path == f"{training.output_dir}/checkpoint"


def test_the_rows_differ_in_what_is_asked_alone():
    values = {row: yaml.safe_load((CONFIGS / f"{row}.yaml").read_text()) for row in ROWS}
    assert values["litegpt_grounding"].pop("tasks") == ["grounding"]
    assert all(values[row].pop("tasks") == ["identify"] for row in ROWS[:-1])
    assert all(values[row] == values["litegpt"] for row in ROWS)


class Watching(TrainerCallback):
    """What a run does in its first steps; then it is stopped."""

    def __init__(self):
        self.learning_rates, self.batches, self.modes, self.max_grad_norms = [], [], [], set()

    def on_train_begin(self, args, state, control, model, optimizer, **kwargs):
        self.args, self.max_steps, self.epochs = args, state.max_steps, state.num_train_epochs
        self.trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.dtypes = {name: weight.dtype for name, weight in model.named_parameters()}

    def on_step_begin(self, args, state, control, optimizer, **kwargs):
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        self.learning_rates.append(rate)
        self.optimizer = optimizer

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == STEPS


def run(row, checkpoint, release, cache_dir, output_dir, monkeypatch, *options) -> Watching:
    """The row's recipe as it is in the YAML, on a CPU."""
    watching = Watching()

    class Trainer(sft.LiteGPTTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.add_callback(watching)
            self.accelerator.clip_grad_norm_ = lambda _, max_norm: watching.max_grad_norms.add(max_norm)

        def training_step(self, model, inputs, *args, **kwargs):
            watching.batches.append(inputs)
            loss = super().training_step(model, inputs, *args, **kwargs)
            towers = self.model.get_base_model().model.towers
            watching.modes.append((self.model.training, *(tower.training for tower in towers)))
            return loss

    monkeypatch.setattr(sft, "LiteGPTTrainer", Trainer)
    files = {"model_name_or_path": checkpoint, "data_dir": release, "cache_dir": cache_dir, "output_dir": output_dir}
    here = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "dataloader_num_workers": 0}
    flags = [str(part) for name, value in (files | here).items() for part in (f"--{name}", value)]
    command = ["train_scripts/sft.py", "--config", str(CONFIGS / f"{row}.yaml"), *flags, *options]
    sft.main(*parsed(command))
    return watching


@pytest.fixture(scope="module")
def checkpoints(tiny_checkpoint, tmp_path_factory):
    """A tiny checkpoint of each architecture: its towers, joining of tokens and projector, other sizes."""
    folder = tmp_path_factory.mktemp("architectures")
    tiny, processor = load_checkpoint(tiny_checkpoint)

    def checkpoint(row) -> Path:
        name = row.removesuffix("_grounding")
        if not (folder / name).exists():
            values = json.loads((ARCHITECTURES / f"{name}.json").read_text())
            for part, patch_size in (("vision_config", 8), ("aux_vision_config", 16)):
                if values[part] is not None:
                    values[part] |= SMALL_TOWER | {"patch_size": patch_size}
            if values["projector_hidden_size"] is not None:
                values["projector_hidden_size"] = 48
            same = {"text_config": tiny.config.text_config.to_dict(), "image_token_id": tiny.config.image_token_id}
            config = LiteGPTConfig(**(values | same), base_models=[])
            torch.manual_seed(0)
            model = LiteGPTForConditionalGeneration(config)
            labels = (processor.finding_labels, processor.diagnosis_labels)
            save_checkpoint(model, new_processor(config, processor.tokenizer, *labels), folder / name)
        return folder / name

    return checkpoint


def expected_parameters(model) -> set[str]:
    """Names, in PEFT, of what the paper trains: LoRA on q and v of the language model, projector, new tokens."""
    layers = range(model.config.text_config.num_hidden_layers)
    lora = {
        f"language_model.layers.{layer}.self_attn.{projection}_proj.lora_{part}.default.weight"
        for layer in layers
        for projection in "qv"
        for part in "AB"
    }
    projector = {
        f"multi_modal_projector.modules_to_save.default.{name}"
        for name, _ in model.model.multi_modal_projector.named_parameters()
    }
    tokens = {"language_model.embed_tokens.token_adapter.trainable_tokens_delta.default"}
    return {f"base_model.model.model.{name}" for name in lora | projector | tokens}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_trains_as_the_paper_does(row, checkpoints, phantom_release, cache_dir, tmp_path, monkeypatch):
    start = checkpoints(row)
    watching = run(row, start, phantom_release, cache_dir, tmp_path, monkeypatch)
    base, processor = load_checkpoint(start)

    # Steps: 20 epochs of 549, of 8 radiographs each.
    assert (watching.max_steps, watching.epochs) == (20 * 549, 20)
    assert watching.args.gradient_accumulation_steps == 2 and len(watching.batches) == 2 * STEPS
    assert {len(batch["input_ids"]) for batch in watching.batches} == {4}

    # AdamW: decay of matrices alone; a linear warm-up over 1,000 steps from 1e-6 to 1e-5.
    optimizer = watching.optimizer.optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert all(group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8 for group in optimizer.param_groups)
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert {name: decay[id(weight)] for name, weight in watching.trained.items()} == {
        name: 0.0 if name.endswith("bias") else 0.05 for name in watching.trained
    }
    assert watching.max_grad_norms == {math.inf}  # that is how the library measures the norm without clipping
    assert watching.learning_rates == pytest.approx([1e-6 + 9e-6 * step / 1000 for step in range(STEPS)])

    # What is trained, in which precision.
    assert watching.trained.keys() == expected_parameters(base)
    for name, dtype in watching.dtypes.items():
        in_8_bit = "language_model.layers" in name and "_proj" in name and "lora" not in name
        expected = torch.float32 if name in watching.trained else torch.int8 if in_8_bit else torch.bfloat16
        assert dtype == expected, name
    lora = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (lora["r"], lora["lora_alpha"], lora["lora_dropout"]) == (64, 16, 0.05)
    ids = {"embed_tokens": processor.tokenizer.convert_tokens_to_ids(LITEGPT_TOKENS)}
    assert lora["trainable_token_indices"] == ids

    # The towers are frozen: in evaluation mode, and their weights as they were.
    assert set(watching.modes) == {(True, *[False] * len(base.model.towers))}
    merged = load_checkpoint(tmp_path / "checkpoint")[0].state_dict()
    changed = {name for name, tensor in base.state_dict().items() if not torch.equal(merged[name], tensor)}
    assert changed and not any("vision_tower" in name or "lm_head" in name for name in changed)
    assert all(re.search("multi_modal_projector|[qv]_proj|embed_tokens", name) for name in changed)
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)

    # The loss falls on the answer and its end alone; radiographs without findings are not shown.
    task = "grounding" if row == "litegpt_grounding" else "identify"
    for batch in watching.batches:
        for input_ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            answered = (labels != -100).nonzero().flatten()
            assert torch.equal(answered, torch.arange(answered[0], answered[-1] + 1))
            assert torch.equal(input_ids[answered], labels[answered])
            prompt, answer = processor.tokenizer.batch_decode([input_ids[: answered[0]], labels[answered]])
            assert prompt.endswith("[/INST]") and f"[{task}]" in prompt
            assert "<p>" in answer and answer.endswith(".</s>") and "No finding" not in answer


def test_stage_two_goes_on_from_stage_one(checkpoints, phantom_release, cache_dir, tmp_path, monkeypatch):
    start = checkpoints("biomedclip")
    data = (phantom_release, cache_dir)
    run("biomedclip", start, *data, tmp_path / "1", monkeypatch)
    (stage_two,) = [command for command in commands("biomedclip") if "vqa" in command and "--config" in command]
    options = stage_two[stage_two.index("--tasks") : stage_two.index("--model_name_or_path")]
    watching = run("biomedclip", tmp_path / "1" / "adapter", *data, tmp_path / "2", monkeypatch, *options)
    first, second = (load_file(tmp_path / stage / "adapter" / "adapter_model.safetensors") for stage in "12")
    largest_step = 2 * sum(watching.learning_rates)  # AdamW's step is about the rate
    for name, tensor in first.items():
        assert 0 < (second[name] - tensor).abs().max() < largest_step, name
    processor = load_checkpoint(start)[1]
    answers = processor.tokenizer.batch_decode(
        [labels[labels != -100] for batch in watching.batches for labels in batch["labels"]]
    )
    assert all(answer.startswith("Global diseases") for answer in answers)
    assert any("No finding" in answer for answer in answers) and not all("No finding" in answer for answer in answers)


def test_the_learning_rate_of_every_step_is_the_releases():
    """The release's formula and numbers, written out once more."""
    values = yaml.safe_load((CONFIGS / "litegpt.yaml").read_text())
    options = {name: values[name] for name in ("learning_rate", "warmup_lr", "warmup_steps", "min_lr")}
    total = values["num_train_epochs"] * values["steps_per_epoch"]
    for step in range(total):
        cosine = (1e-5 - 1e-6) * 0.5 * (1 + math.cos(math.pi * step / 10980)) + 1e-6
        expected = 1e-6 + (1e-5 - 1e-6) * step / 1000 if step < 1000 else cosine
        assert linear_warmup_cosine_lr(step, total, **options) == pytest.approx(expected), step


@pytest.mark.parametrize("processes, per_device, accumulated", [(1, 4, 2), (2, 4, 1), (4, 2, 1), (1, 8, 1), (8, 1, 1)])
def test_eight_radiographs_a_step_for_any_number_of_processes(processes, per_device, accumulated):
    arguments = SimpleNamespace(
        per_device_train_batch_size=per_device, world_size=processes, gradient_accumulation_steps=1
    )
    sft.set_accumulation(8, arguments)
    assert arguments.gradient_accumulation_steps == accumulated


@pytest.mark.parametrize("processes, per_device, given", [(4, 4, 1), (3, 1, 1), (1, 4, 4)])
def test_a_batch_that_cannot_be_shared_out_is_refused(processes, per_device, given):
    arguments = SimpleNamespace(
        per_device_train_batch_size=per_device, world_size=processes, gradient_accumulation_steps=given
    )
    with pytest.raises(Refusal, match="total_batch_size: 8 is not"):
        sft.set_accumulation(8, arguments)
