"""What gives maps of labels: a radiograph classifier, or a LiteGPT whose answers are explained.

    source = load_source("outputs/classifier/checkpoint", method=None, device="cuda")
    source.labels                                       # that it has maps of
    source.look(radiographs, [["Effusion"], []])        # [Seen(probabilities=..., grids={"Effusion": (g, g)}), ...]
    control = source.with_random_weights(seed=0, examples=radiographs)

In: radiographs as a processor takes them, and which labels' maps are wanted of each. Out: grids over the whole
radiograph in the standard view, and a classifier's probabilities.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from litegpt.evaluation_scripts.map_scores import BoxRule
from litegpt.evaluation_scripts.predictions import doubts_unsaid
from litegpt.modeling_litegpt.checkpoints import check_checkpoint_exists, load_checkpoint
from litegpt.modeling_towers import RadiographClassifier
from litegpt.modeling_towers.classifier_checkpoints import load_classifier
from litegpt.modeling_towers.configuration_classifier import MAPS
from litegpt.modeling_towers.image_towers import measure_batch_norms
from litegpt.processing.answer_maps import DEFAULT_METHOD, METHODS, label_maps
from litegpt.processing.processing_classifier import RadiographClassifierProcessor


class Seen(NamedTuple):
    """Of one radiograph: (labels,) probabilities, where the source has any, and maps by label.

    Maps are those that are wanted; a classifier's also of each label that it calls present.
    """

    probabilities: np.ndarray | None
    grids: dict[str, np.ndarray]


class MapSource(Protocol):
    """A model that gives maps.

    Attributes:
        labels: that it has maps of.
        method: how its maps are made.
        cut_offs: {label: probability from which on it is called present}; empty of a source without probabilities.
        boxes: how they are drawn around a map.
    """

    labels: list[str]
    method: str
    cut_offs: dict[str, float]
    boxes: BoxRule

    def look(self, radiographs: Sequence[Any], wanted: Sequence[Sequence[str]]) -> list[Seen]: ...

    def with_random_weights(self, seed: int, examples: Sequence[Any]) -> "MapSource":
        """The same network with random weights, whose batch norms have the statistics of some radiographs."""


def load_source(folder: str, method: str | None, device: str) -> MapSource:
    """The source that a checkpoint is.

    Args:
        method: of a classifier "cam" or "positive", None: its own; of a LiteGPT one of `METHODS`.

    Raises:
        OSError: there is no checkpoint.
        ValueError: it is neither, or has no such method.
    """
    check_checkpoint_exists(folder)
    config = Path(folder, "config.json")
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
    if kind == "litegpt":
        methods, source = tuple(METHODS), LiteGPTSource
    elif kind == "radiograph_classifier":
        methods, source = MAPS, ClassifierSource
    else:
        raise ValueError(f"{folder}: a checkpoint of {kind} has no maps of labels; of a classifier or a LiteGPT.")
    if method not in (None, *methods):
        raise ValueError(f"--method {method}: {folder} has {', '.join(methods)}.")
    return source.load(folder, method, device)


class ClassifierSource:
    """A `RadiographClassifier`."""

    def __init__(
        self,
        model: RadiographClassifier,
        processor: RadiographClassifierProcessor,
        method: str,
        boxes: BoxRule,
    ):
        self.model, self.processor, self.method, self.boxes = model.eval(), processor, method, boxes
        self.labels = model.config.labels
        self.cut_offs = {label: model.config.cut_off(label) for label in self.labels}

    @classmethod
    def load(cls, folder: str, method: str | None, device: str) -> "ClassifierSource":
        model, processor = load_classifier(folder)
        config = model.config
        boxes = BoxRule(tuple(config.box_thresholds), config.box_rule)
        return cls(model.to(device), processor, method or config.map_kind, boxes)

    @torch.inference_mode()
    def look(self, radiographs: Sequence[Any], wanted: Sequence[Sequence[str]]) -> list[Seen]:
        outputs = self.model(self._pixels(radiographs), return_maps=True, map_kind=self.method)
        probabilities, maps = outputs.logits.float().sigmoid().cpu().numpy(), outputs.maps.cpu().numpy()
        return [
            Seen(
                scores,
                {
                    label: maps[row, place]
                    for place, label in enumerate(self.labels)
                    if label in wanted[row] or scores[place] >= self.cut_offs[label]
                },
            )
            for row, scores in enumerate(probabilities)
        ]

    def with_random_weights(self, seed: int, examples: Sequence[Any]) -> "ClassifierSource":
        with _seeded(seed):
            fresh = RadiographClassifier(self.model.config)
        fresh = fresh.to(self.model.device, self.model.dtype)
        measure_batch_norms(fresh, lambda: fresh(self._pixels(examples)))
        return ClassifierSource(fresh, self.processor, self.method, self.boxes)

    def _pixels(self, radiographs: Sequence[Any]) -> torch.Tensor:
        with doubts_unsaid():
            pixels = self.processor(images=list(radiographs))["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)


class LiteGPTSource:
    """A LiteGPT: a map of a label explains why the answer to `identify` would name it."""

    def __init__(self, model: Any, processor: Any, method: str, boxes: BoxRule):
        self.model, self.processor, self.method, self.boxes = model.eval(), processor, method, boxes
        self.cut_offs: dict[str, float] = {}  # its answers name labels, without a probability of each
        self.labels = list(processor.finding_labels)

    @classmethod
    def load(cls, folder: str, method: str | None, device: str) -> "LiteGPTSource":
        model, processor = load_checkpoint(folder)
        return cls(model.to(device), processor, method or DEFAULT_METHOD, BoxRule())

    def look(self, radiographs: Sequence[Any], wanted: Sequence[Sequence[str]]) -> list[Seen]:
        seen = [Seen(None, {}) for _ in radiographs]
        pairs = [(row, label) for row, labels in enumerate(wanted) for label in labels]
        if pairs:
            rows, labels = zip(*pairs, strict=True)
            with doubts_unsaid():
                pixels = self.processor(
                    images=[radiographs[row] for row in rows],
                    text=[self.processor.prompt("identify")] * len(rows),
                    padding=True,
                    return_tensors="pt",
                )
            maps = label_maps(self.model, self.processor, pixels, labels, self.method)
            for (row, label), grid in zip(pairs, maps, strict=True):
                seen[row].grids[label] = np.asarray(grid)
        return seen

    def with_random_weights(self, seed: int, examples: Sequence[Any]) -> "LiteGPTSource":
        with _seeded(seed):
            fresh = type(self.model)(self.model.config)
        fresh = fresh.to(self.model.device, self.model.dtype)
        return LiteGPTSource(fresh, self.processor, self.method, self.boxes)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
