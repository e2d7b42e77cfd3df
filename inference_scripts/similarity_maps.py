"""Where a CXR-CLIP sees a sentence: the similarity of each patch of a radiograph to it.

    model, processor = load_cxr_clip("outputs/cxr_clip/checkpoint")
    found = similarity_map(model, processor, "radiograph.dicom", "pleural effusion.", against="no pleural effusion.")
    found.grid, found.cosine, found.box(*found.largest)

What a map says, and what it does not. With mean pooling the vector of a radiograph is the mean of its patches'
projected tokens before they are brought to length 1: a map shows what that vector is made of. It is no segmentation:
each token of a Swin or a ResNet sees far more of the radiograph than its patch. Maps were not held against boxes that
radiologists drew. With another pooling no patch was trained to meet a sentence; each line and picture then says so.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch.nn import functional

from litegpt.inference_scripts.arguments import ExplainArguments
from litegpt.inference_scripts.radiograph_maps import Box, MapMaker, RadiographMap
from litegpt.modeling_litegpt.provenance import Provenance, provenance
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.modeling_towers.checkpoints import load_cxr_clip
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.processing.radiograph import box_as_given, grid_as_given

NOT_POOLED = (
    "the checkpoint's image vector is not the mean of its patches, and no patch was trained to meet a sentence"
)
PUBLISHED = "MIMIC-CXR"  # what all published weights of CXR-CLIP were trained on


@dataclass(frozen=True, kw_only=True)
class SimilarityMap(RadiographMap):
    """Where a radiograph is like a sentence: the grid has a cosine for each patch, or the difference of two.

    Attributes:
        cosine: of the whole radiograph, likewise.
    """

    what_it_is: ClassVar[str] = (
        "Colours span this map's own range. Patches see more than their own area: no segmentation."
    )

    cosine: float

    @property
    def facts(self) -> dict[str, Any]:
        return {"cosine": round(self.cosine, 6)}

    def words(self, line: Mapping[str, Any]) -> list[str]:
        against = "" if line["against"] is None else f' against "{line["against"]}"'
        kind = "Cosine" if line["against"] is None else "Difference of cosines"
        return [f'"{line["text"]}"{against}', f"{kind} of the whole radiograph: {self.cosine:.3f}"]


class SimilarityMaps(MapMaker):
    """A CXR-CLIP checkpoint, asked about sentences: a map for each.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: its weights do not fit, or a sentence is longer than the model reads.
    """

    def __init__(self, args: ExplainArguments):
        model, self.processor = load_cxr_clip(args.model_name_or_path)
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        texts = list(dict.fromkeys(args.texts))
        self.vectors = sentence_vectors(self.model, self.processor, texts, args.against)
        self.questions = [{"text": text, "against": args.against} for text in texts]
        self.windowing = self.processor.windowing
        self.source = source_of(args.model_name_or_path, model.config.to_dict())

    def maps(self, radiograph: Image.Image, numbers: Sequence[int]) -> list[list[RadiographMap]]:
        return [[one] for one in similarity_maps(self.model, self.processor, radiograph, self.vectors[numbers])]


def similarity_map(
    model: CXRCLIPModel, processor: CXRCLIPProcessor, radiograph: Any, text: str, against: str | None = None
) -> SimilarityMap:
    """The similarity of each patch of one radiograph to one sentence.

    Args:
        radiograph: as `load_radiograph` takes it.
        against: a contrasting sentence, whose cosines are subtracted.

    Raises:
        RadiographError: the radiograph cannot be used.
        ValueError: a sentence is longer than the model reads, or the model's patches are no square grid.
    """
    (picture,) = processor.load(radiograph)
    return similarity_maps(model, processor, picture, sentence_vectors(model, processor, [text], against))[0]


@torch.no_grad()
def sentence_vectors(
    model: CXRCLIPModel, processor: CXRCLIPProcessor, texts: Sequence[str], against: str | None = None
) -> torch.Tensor:
    """(texts, projection_dim): of length 1; with `against` its vector is subtracted from each.

    Raises:
        ValueError: a sentence is longer than the model reads.
    """
    sentences = [*texts, *([against] if against is not None else [])]
    for sentence in sentences:
        length = len(processor.tokenizer(sentence)["input_ids"])
        if length > processor.max_length:
            raise ValueError(
                f"a sentence has {length} tokens, more than the {processor.max_length} that the model reads: "
                f"{sentence[:60]}..."
            )
    vectors = model(**processor(text=sentences).to(model.device)).text_embeds
    return vectors if against is None else vectors[:-1] - vectors[-1:]


@torch.no_grad()
def similarity_maps(
    model: CXRCLIPModel, processor: CXRCLIPProcessor, radiograph: Image.Image, vectors: torch.Tensor
) -> list[SimilarityMap]:
    """One radiograph's maps, one for each of the `vectors` of `sentence_vectors`.

    Args:
        radiograph: as `load_radiograph` gives it.

    Raises:
        ValueError: the model's patches are no square grid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was read before, and its warnings are in its info
        pixels = processor(images=radiograph)["pixel_values"].to(model.device)
    patches = model.get_patch_embeddings(pixels)[0]
    whole = functional.normalize(model.get_image_features(pixels).pooler_output.float(), dim=-1)[0]
    side = round(len(patches) ** 0.5)
    if side**2 != len(patches):
        raise ValueError(f"the model sees {len(patches)} patches, which are no square grid.")
    turn = radiograph.info.get("turn")
    width, height = radiograph.size
    x1, y1, x2, y2 = box_as_given(seen_part(processor, _turned_size(radiograph)), turn)
    seen = (x1 * width, y1 * height, x2 * width, y2 * height)
    doubts = tuple(radiograph.info.get("warnings", ()))
    grids = (vectors @ patches.T).view(-1, side, side).cpu().numpy()
    cosines = (vectors @ whole).tolist()
    return [
        SimilarityMap(grid=grid_as_given(grid, turn), cosine=cosine, size=radiograph.size, seen=seen, warnings=doubts)
        for grid, cosine in zip(grids, cosines, strict=True)
    ]


def seen_part(processor: CXRCLIPProcessor, size: tuple[int, int]) -> Box:
    """What an image processor leaves of a picture of (width, height), xyxy in fractions of it.

    One that crops brings the shorter side to its size, and takes the middle of the longer one.
    """
    settings = processor.image_processor
    if not settings.do_center_crop:
        return 0.0, 0.0, 1.0, 1.0
    scaled, kept = dict(settings.size), dict(settings.crop_size)
    shorter = min(size)
    starts, ends = [], []
    for side, name in zip(size, ("width", "height"), strict=True):
        edge = scaled.get("shortest_edge")
        length = scaled[name] if edge is None else edge * side // shorter
        starts.append((length - kept[name]) // 2 / length)
        ends.append(starts[-1] + kept[name] / length)
    return starts[0], starts[1], ends[0], ends[1]


def source_of(name: str, config: Mapping[str, Any]) -> Provenance:
    """Where a map is from; a CXR-CLIP's training on pairs, which names no tasks, is what teaches it to answer here."""
    record = [{**entry, "tasks": ["pairs"]} for entry in config.get("training_record") or []]
    if "cxr_clip" in (config.get("base_models") or []):
        record.insert(0, {"data_set": {"name": PUBLISHED}, "tasks": ["pairs"]})
    found = provenance(name, {**config, "training_record": record})
    cautions = [found.caution, None if config["image_pooling"] == "mean" else NOT_POOLED]
    return Provenance(found.checkpoint, found.trained_on, "; ".join(filter(None, cautions)) or None)


def _turned_size(radiograph: Image.Image) -> tuple[int, int]:
    """(width, height) in the standard view."""
    turn = radiograph.info.get("turn")
    return radiograph.size if turn is None else Image.new("1", radiograph.size).transpose(turn).size
