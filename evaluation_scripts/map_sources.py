"""What gives maps of labels: a radiograph classifier, or a LiteGPT whose answers are explained.

    source = load_source("outputs/classifier/checkpoint", method=None, device="cuda")
    source.labels                                       # that it has maps of
    source.look(radiographs, [["Effusion"], []])        # [Seen(probabilities=..., grids={"Effusion": (g, g)}), ...]
    control = source.with_random_weights(seed=0, examples=radiographs)

In: radiographs as a processor takes them, and which labels' maps are wanted of each. Out: grids over the whole
radiograph in the standard view, and a classifier's probabilities.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from litegpt.evaluation_scripts.map_scores import BoxRule
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
        names_labels: whether it has probabilities of all labels.
        boxes: how they are drawn around a map.
    """

    labels: list[str]
    method: str
    names_labels: bool
    boxes: BoxRule

    def look(self, radiographs: Sequence[Any], wanted: Sequence[Sequence[str]]) -> list[Seen]: ...

    def cut_off(self, label: str) -> float:
        """The probability from which on a label is called present, where it has any."""

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

    names_labels = True

    def __init__(self, model: RadiographClassifier, processor: RadiographClassifierProcessor, method: str):
        self.model, self.processor, self.method = model.eval(), processor, method
        self.labels = model.config.labels
        self.boxes = BoxRule(tuple(model.config.box_thresholds), model.config.box_rule)

    @classmethod
    def load(cls, folder: str, method: str | None, device: str) -> "ClassifierSource":
        model, processor = load_classifier(folder)
        return cls(model.to(device), processor, method or model.config.map_kind)

    @torch.inference_mode()
    def look(self, radiographs: Sequence[Any], wanted: Sequence[Sequence[str]]) -> list[Seen]:
        outputs = self.model(self._pixels(radiographs), return_maps=True, map_kind=self.method)
        probabilities, maps = outputs.logits.float().sigmoid().cpu().numpy(), outputs.maps.cpu().numpy()
        cut_offs = [self.cut_off(label) for label in self.labels]
        return [
            Seen(
                scores,
                {
                    label: maps[row, place]
                    for place, label in enumerate(self.labels)
                    if label in wanted[row] or scores[place] >= cut_offs[place]
                },
            )
            for row, scores in enumerate(probabilities)
        ]

    def cut_off(self, label: str) -> float:
        return (self.model.config.present or {}).get(label, 0.5)

    def with_random_weights(self, seed: int, examples: Sequence[Any]) -> "ClassifierSource":
        with _seeded(seed):
            fresh = RadiographClassifier(self.model.config)
        fresh = fresh.to(self.model.device, self.model.dtype)
        measure_batch_norms(fresh, lambda: fresh(self._pixels(examples)))
        return _as(self, ClassifierSource(fresh, self.processor, self.method))

    def _pixels(self, radiographs: Sequence[Any]) -> torch.Tensor:
        with _doubts_unsaid():
            pixels = self.processor(images=list(radiographs))["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)


class LiteGPTSource:
    """A LiteGPT: a map of a label explains why the answer to `identify` would name it."""

    names_labels = False
    boxes = BoxRule()

    def __init__(self, model: Any, processor: Any, method: str):
        self.model, self.processor, self.method = model.eval(), processor, method
        self.labels = list(processor.finding_labels)

    @classmethod
    def load(cls, folder: str, method: str | None, device: str) -> "LiteGPTSource":
        model, processor = load_checkpoint(folder)
        return cls(model.to(device), processor, method or DEFAULT_METHOD)

    def look(self, radiographs: Sequence[Any], wanted: Sequence[Sequence[str]]) -> list[Seen]:
        seen = [Seen(None, {}) for _ in radiographs]
        pairs = [(row, label) for row, labels in enumerate(wanted) for label in labels]
        if pairs:
            rows, labels = zip(*pairs, strict=True)
            with _doubts_unsaid():
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

    def cut_off(self, label: str) -> float:
        raise NotImplementedError("its answers name labels, without a probability of each")

    def with_random_weights(self, seed: int, examples: Sequence[Any]) -> "LiteGPTSource":
        with _seeded(seed):
            fresh = type(self.model)(self.model.config)
        fresh = fresh.to(self.model.device, self.model.dtype)
        return _as(self, LiteGPTSource(fresh, self.processor, self.method))


def _as(source: MapSource, control: MapSource) -> MapSource:
    """The control with boxes drawn as the source's."""
    control.boxes = source.boxes
    return control


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _doubts_unsaid() -> Iterator[None]:
    """Doubts about pictures stand in the predictions file; on the terminal they would name no radiograph."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the given image: ", category=UserWarning)
        yield
