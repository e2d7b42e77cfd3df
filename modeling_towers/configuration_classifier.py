"""The configuration of a radiograph classifier: its trunk, how its places are pooled, what is known of its labels."""

from transformers import CONFIG_MAPPING, AutoConfig
from transformers.configuration_utils import PreTrainedConfig

POOLINGS = ("average", "max", "lse", "pcam")
MAPS = ("cam", "positive")
BOX_RULES = ("regions", "peak")
RESNET_50 = {"model_type": "resnet"}


class RadiographClassifierConfig(PreTrainedConfig):
    """Configuration of ChestX-ray8's network (arXiv 1705.02315, section 4). The defaults are the paper's best.

    Labels are the library's own `id2label`.

    Args:
        trunk_config: a configuration, a dictionary with `model_type` (resnet, vit, swin, timm_wrapper, ...: any whose
            model gives `last_hidden_state`), or None for ResNet-50. With `standardize_pixels` each radiograph is
            brought to mean 0 and deviation 1 before the trunk.
        trunk_stage: a ResNet ends at this stage, such as "stage3", whose map is twice as fine. None: at its end.
        image_size: pixels of the square input, for trunks whose own configuration does not say (ResNet).
        trunk_width: of the trunk's tokens, for trunks whose own configuration does not say (timm_wrapper).
        transition_width: of the transition layer's activations; None: as wide as the trunk; 0: there is none.
        pooling: "lse", Log-Sum-Exp, "average" or "max" over all places, of each activation by itself; or "pcam"
            (arXiv 2005.14480): the places of each label weighted by its probability there.
        lse_r: Log-Sum-Exp's r: near 0 it is the average, large the maximum.
        balance: "batch": positive and negative labels of a batch weigh the same in the loss; or "none".
        map_kind: what `return_maps` gives unless it is told: "cam", the paper's, or "positive", the same without what
            speaks against a label.
        box_thresholds: of a map brought to 0..255, above which regions become boxes.
        box_rule: "regions", a box around each isolated region, as in the paper; or "peak", around the highest alone.
        present: {label: probability from which it is called present}, chosen on a validation; a label that is not
            named is called from 0.5 on.

    Raises:
        ValueError: a pooling, a balance, a kind of map or a rule of boxes that there is not.
    """

    model_type = "radiograph_classifier"
    sub_configs = {"trunk_config": AutoConfig}

    trunk_config: dict | PreTrainedConfig | None = None
    trunk_stage: str | None = None
    image_size: int = 224
    trunk_width: int | None = None
    transition_width: int | None = None
    pooling: str = "lse"
    lse_r: float = 10.0
    balance: str = "batch"
    map_kind: str = "cam"
    box_thresholds: list | tuple = (60, 180)
    box_rule: str = "regions"
    present: dict | None = None

    def __post_init__(self, **kwargs):
        if not isinstance(self.trunk_config, PreTrainedConfig):
            values = dict(RESNET_50 if self.trunk_config is None else self.trunk_config)
            self.trunk_config = CONFIG_MAPPING[values.pop("model_type", "resnet")](**values)
        if getattr(self.trunk_config, "image_size", None) is None:
            self.trunk_config.image_size = self.image_size
        self.image_size = self.trunk_config.image_size
        self.box_thresholds = list(self.box_thresholds)
        kwargs.setdefault("problem_type", "multi_label_classification")
        for name, known in (
            ("pooling", POOLINGS),
            ("balance", ("batch", "none")),
            ("map_kind", MAPS),
            ("box_rule", BOX_RULES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}.")
        super().__post_init__(**kwargs)

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the order of the logits."""
        return [self.id2label[number] for number in range(self.num_labels)]

    def cut_off(self, label: str) -> float:
        """The probability from which on a label is called present."""
        return (self.present or {}).get(label, 0.5)

    @property
    def width(self) -> int:
        """Of the trunk's tokens; a ResNet has a width for each stage."""
        trunk = self.trunk_config
        if self.trunk_width is not None:
            return self.trunk_width
        widths = getattr(trunk, "hidden_sizes", None)
        if widths is None:
            return trunk.hidden_size
        if self.trunk_stage is None:
            return widths[-1]
        return widths[trunk.stage_names.index(self.trunk_stage) - 1]


__all__ = ["RadiographClassifierConfig"]
