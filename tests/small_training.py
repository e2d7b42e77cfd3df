"""A run of `sft.py` that a test can afford."""

from trl import ModelConfig, SFTConfig

from litegpt.train_scripts import sft
from litegpt.train_scripts.arguments import ExampleArguments, RecipeArguments


def train(output_dir, checkpoint, release, cache_dir, model_options=None, **options):
    """Runs `sft.main`; `options` are those of any of its argument classes."""
    of_class = {
        arguments: {name: options.pop(name) for name in list(options) if name in arguments.__dataclass_fields__}
        for arguments in (sft.DataArguments, ExampleArguments, RecipeArguments)
    }
    defaults = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    defaults |= {"save_strategy": "no", "report_to": "none"}
    training_args = SFTConfig(
        str(output_dir),
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        **{**defaults, **options},
    )
    sft.main(
        sft.DataArguments(str(release), cache_dir=cache_dir, **of_class[sft.DataArguments]),
        ExampleArguments(**of_class[ExampleArguments]),
        RecipeArguments(**of_class[RecipeArguments]),
        training_args,
        ModelConfig(str(checkpoint), dtype="float32", **(model_options or {})),
    )
