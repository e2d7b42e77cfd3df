"""The library's `PreTrainedModel`, but weights that do not fit are an error, and what it saves can be read by all.

It travels with the checkpoints of the models that inherit it.
"""

from pathlib import Path

from transformers.modeling_utils import PreTrainedModel


class CheckedModel(PreTrainedModel):
    """A model of transformers that is loaded whole or not at all."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """The library's, but weights that do not fit are an error: it would draw those that are missing at random.

        Raises:
            ValueError: a tensor is missing, unexpected or of another shape.
        """
        if pretrained_model_name_or_path is None or kwargs.get("output_loading_info"):
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        problems = [
            f"{problem}: {', '.join(sorted(str(key) for key in info[keys])[:3])}"
            for problem, keys in (
                ("missing", "missing_keys"),
                ("unexpected", "unexpected_keys"),
                ("of another shape", "mismatched_keys"),
            )
            if info[keys]
        ]
        if problems:
            raise ValueError(
                f"{pretrained_model_name_or_path}: the weights do not fit the configuration: {'; '.join(problems)}."
            )
        return model

    def save_pretrained(self, save_directory: str | Path, *args, **kwargs) -> None:
        """The library's; weight files, which it lets their owner alone read, get the permissions of `config.json`."""
        super().save_pretrained(save_directory, *args, **kwargs)
        config = Path(save_directory, "config.json")
        if config.is_file():
            for file in config.parent.glob("*.safetensors"):
                file.chmod(config.stat().st_mode)
