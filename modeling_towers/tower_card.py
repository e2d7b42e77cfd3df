"""A tower's checkpoint -> its model card (README.md): the text of a template, with what is known of its making.

    tower_card("ecamp_card.md.jinja", model.config, "image-feature-extraction", ["ecamp"], num_parameters=...)

In: the template's name and the configuration, whose `base_models` and `training_record` say what the weights started
from and learned from; nothing else is claimed. Every template ends with `training_and_licences.md.jinja`.
"""

from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

from litegpt.common.templates import template
from litegpt.datasets_scripts.preparation.dataset_card import license_name
from litegpt.modeling_litegpt.model_card import THIS_REPOSITORY, base_model, recorded_data_sets

if TYPE_CHECKING:  # it imports torch
    from transformers.configuration_utils import PreTrainedConfig


def tower_card(name: str, config: "PreTrainedConfig", pipeline_tag: str, tags: list[str], **values: Any) -> str:
    """README.md.

    Args:
        name: of the template.
        pipeline_tag, tags: what the Hub lists it under, beside medicine.
        values: what the template names besides.
    """
    recorded = config.to_dict()
    bases, data_sets = recorded.get("base_models"), recorded_data_sets(config)
    data = ModelCardData(
        license="other",
        license_name="see-licences",
        license_link="README.md#licences",
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        language="en",
        tags=[*tags, "medical", "radiology", "chest-x-ray"],
        datasets=[license_name(facts["name"]) for facts in data_sets] or None,
    )
    text = template(__file__, name).render(
        this_repository=THIS_REPOSITORY,
        config=config,
        base_models=None if bases is None else [base_model(key) for key in bases],
        trainings=recorded.get("training_record") or [],
        data_sets=data_sets,
        **values,
    )
    return f"---\n{data}\n---\n\n{text}"
