"""Where a radiograph classifier sees the labels that it calls present, or labels that are named.

    maker = LabelMaps(ExplainArguments(["a.dicom"], "outputs/classifier/checkpoint", "outputs/maps"))
    (found, *others), = maker.maps(load_radiograph("a.dicom"), [0])
    found.explained, found.score, found.grid, found.findings

A map is of the network's last activations, weighted by what they add to the label (`modeling_classifier.py`); the
boxes over it are those of the checkpoint's rule. A radiograph in which no label is called present has the map of its
likeliest one, without boxes.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image

from litegpt.inference_scripts.arguments import ExplainArguments
from litegpt.inference_scripts.radiograph_maps import MapMaker, RadiographMap
from litegpt.modeling_litegpt.provenance import Provenance, provenance
from litegpt.modeling_towers.classifier_checkpoints import load_classifier
from litegpt.modeling_towers.configuration_classifier import MAPS
from litegpt.processing.image_classification_pipeline import RadiographClassificationPipeline

PROGRAM = "train_classifier.py"  # in a checkpoint's training record
PRESENT = "present"  # what a question may ask beside the name of a label
MEANINGS = {
    "cam": "what each place says for the label (high) or against it (low)",
    "positive": "what each place says for the label",
}


def source_of(name: str, config: Mapping[str, Any]) -> Provenance:
    """Where a map is from; a classifier's own training, which names no tasks, is what teaches it to answer here."""
    record = [
        {**entry, "tasks": ["labels"]} if entry["program"] == PROGRAM else entry
        for entry in config.get("training_record") or []
    ]
    return provenance(name, {**config, "training_record": record})


@dataclass(frozen=True, kw_only=True)
class LabelMap(RadiographMap):
    """Where a label is seen.

    Attributes:
        explained: the label.
        score: of the whole radiograph; it ranks, and is no probability of a classifier whose loss was balanced.
        method: of `MAPS`.
        number, maps: which of the maps it is that answer one question about the radiograph, from 1 on, and how many.
        boxes: of its regions, in pixels of the radiograph as given, {"score", "box"}.
    """

    what_it_is: ClassVar[str] = (
        "Colours span this map's own range. It shows what the classifier uses, which may lie beside the disease: no "
        "segmentation."
    )

    explained: str
    score: float
    method: str
    number: int
    maps: int
    boxes: Sequence[dict[str, Any]]

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "explained": self.explained,
            "number": self.number,
            "maps": self.maps,
            "score": round(self.score, 6),
            "finding_boxes": list(self.boxes),
        }

    def words(self, line: Mapping[str, Any]) -> list[str]:
        return [f'"{self.explained}", score {self.score:.3f}: {MEANINGS[self.method]}']

    @property
    def findings(self) -> list[dict[str, Any]]:
        return [{"label": self.explained, **box} for box in self.boxes]


class LabelMaps(MapMaker):
    """A radiograph classifier, asked where it sees its labels.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: its weights do not fit, or it does not know a label or a method.
    """

    def __init__(self, args: ExplainArguments):
        model, processor = load_classifier(args.model_name_or_path)
        labels = model.config.labels
        for label in args.findings or ():
            if label not in labels:
                raise ValueError(f"the checkpoint has no label {label!r}; it has: {', '.join(labels)}")
        self.method = args.method or model.config.map_kind
        if self.method not in MAPS:
            raise ValueError(f"--method {self.method}: a classifier has {' and '.join(MAPS)}.")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipe = RadiographClassificationPipeline(model=model.eval(), processor=processor, device=device)
        asked = list(dict.fromkeys(args.findings or [PRESENT]))
        self.questions = [{"explains": words, "method": self.method} for words in asked]
        self.windowing = processor.windowing
        self.source = source_of(args.model_name_or_path, model.config.to_dict())

    def maps(self, radiograph: Image.Image, numbers: Sequence[int]) -> list[list[RadiographMap]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was read before, and its warnings are in its info
            found = self.pipe(radiograph, return_maps=True, return_boxes=True, map_kind=self.method)
        answers = []
        for number in numbers:
            asked = self.questions[number]["explains"]
            if asked == PRESENT:
                items = [item for item in found if item["boxes"]] or found[:1]
            else:
                items = [item for item in found if item["label"] == asked]
            answers.append([self._map(radiograph, item, place, len(items)) for place, item in enumerate(items, 1)])
        return answers

    def _map(self, radiograph: Image.Image, item: dict[str, Any], number: int, maps: int) -> LabelMap:
        return LabelMap(
            grid=item["map"],
            size=radiograph.size,
            seen=(0, 0, *radiograph.size),
            warnings=tuple(radiograph.info.get("warnings", ())),
            explained=item["label"],
            score=item["score"],
            method=self.method,
            number=number,
            maps=maps,
            boxes=item["boxes"],
        )
