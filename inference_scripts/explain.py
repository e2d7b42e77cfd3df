"""Where a CXR-CLIP sees a sentence: the similarity of each patch of a radiograph to it, as arrays and as pictures.

    litegpt explain --model_name_or_path outputs/cxr_clip/checkpoint --texts "small left pleural effusion." \\
        --output_dir outputs/maps radiograph.dicom folder_of_radiographs

For each radiograph and text: `NAME_NUMBER.npy`, the grid of cosines, a picture of it over the radiograph, and a line
of `maps.jsonl`. The command resumes: what has its line is not computed again. A file that cannot be used is named with
the reason, the others go on, and the status is 1. In notebooks:

    found = similarity_map(model, processor, "radiograph.dicom", "pleural effusion.", against="no pleural effusion.")
    found.grid, found.cosine, found.box(*found.largest)

What a map says, and what it does not. With mean pooling the vector of a radiograph is the mean of its patches'
projected tokens before they are brought to length 1: a map shows what that vector is made of. It is no segmentation:
each token of a Swin or a ResNet sees far more of the radiograph than its patch. Maps were not held against boxes that
radiologists drew. With another pooling no patch was trained to meet a sentence; each line and picture then says so.
"""

import hashlib
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional
from tqdm.auto import tqdm

from litegpt.common.arguments import parse
from litegpt.common.files import complete_lines, replacing, weights_sha256
from litegpt.common.overlay import FAINT, MIN_OVERLAY, TEXT, Sizes, is_drawn, overlay, save
from litegpt.common.programs import program, refuse_bad_input
from litegpt.inference_scripts.arguments import ExplainArguments
from litegpt.inference_scripts.dicom_identity import other_kind
from litegpt.inference_scripts.listing import MAPS, files_below
from litegpt.modeling_litegpt.provenance import Provenance, provenance
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.modeling_towers.checkpoints import load_cxr_clip
from litegpt.processing.dicom import MAX_BYTES, RadiographError, unusable
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.processing.radiograph import box_as_given, load_radiograph

COLOUR_MAP = "viridis"  # rises evenly in lightness: readable with any colour blindness, and in grey
OPACITY = 0.2, 0.5  # of the smallest and the largest cosine: what is unlike the sentence hides little
MID_GREY = 128  # what the bar's colours lie over
NOT_POOLED = (
    "the checkpoint's image vector is not the mean of its patches, and no patch was trained to meet a sentence"
)
WHAT_IT_IS = "Colours span this map's own range. Patches see more than their own area: no segmentation."
PUBLISHED = "MIMIC-CXR"  # what all published weights of CXR-CLIP were trained on

Box = tuple[float, float, float, float]  # xyxy


@dataclass(frozen=True)
class SimilarityMap:
    """Where a radiograph is like a sentence.

    Attributes:
        grid: (g, g) float32, a cosine for each patch, or the difference of two, in the radiograph's own orientation.
        cosine: of the whole radiograph, likewise.
        size: (width, height) of the radiograph as given, in pixels.
        seen: the part of it that the model sees and the grid covers, xyxy in its pixels; all of it without a crop.
        warnings: what is doubtful about the radiograph.
    """

    grid: np.ndarray
    cosine: float
    size: tuple[int, int]
    seen: Box
    warnings: tuple[str, ...] = ()

    @property
    def largest(self) -> tuple[int, int]:
        """Row and column of the largest cosine, the first of equal ones."""
        row, column = np.unravel_index(np.argmax(self.grid), self.grid.shape)
        return int(row), int(column)

    def box(self, row: int, column: int) -> Box:
        """A patch in pixels of the radiograph as given, xyxy."""
        (x1, y1, x2, y2), side = self.seen, len(self.grid)
        width, height = (x2 - x1) / side, (y2 - y1) / side
        return x1 + column * width, y1 + row * height, x1 + (column + 1) * width, y1 + (row + 1) * height

    def over(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """(height, width) float32: the grid over the radiograph, bilinear; NaN where the model does not see it.

        Args:
            size: (width, height) of a picture of the radiograph; None for the radiograph's own.
        """
        size = self.size if size is None else size
        scale = [picture / own for picture, own in zip(size, self.size, strict=True)]
        x1, y1, x2, y2 = (round(value * scale[number % 2]) for number, value in enumerate(self.seen))
        values = Image.new("F", size, float("nan"))
        values.paste(Image.fromarray(self.grid).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR), (x1, y1))
        return np.asarray(values)


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
        SimilarityMap(grid_as_given(grid, turn), cosine, radiograph.size, seen, doubts)
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


def grid_as_given(grid: np.ndarray, turn: Image.Transpose | None) -> np.ndarray:
    """A grid (g, g) of the standard view in the orientation of the radiograph as it was given."""
    side, given = len(grid), np.empty_like(grid)
    for row, column in np.ndindex(grid.shape):
        x, y, _, _ = box_as_given((column / side, row / side, (column + 1) / side, (row + 1) / side), turn)
        given[round(y * side), round(x * side)] = grid[row, column]
    return given


def picture_of(radiograph: Image.Image, found: SimilarityMap, line: Mapping[str, Any]) -> Image.Image:
    """The map over its radiograph; below it a bar of colours with numbers, and all that is to be said in words.

    Args:
        radiograph: as given; small ones are enlarged for legible text.
        line: of `maps.jsonl`.
    """
    scale = max(1.0, MIN_OVERLAY / min(radiograph.size))
    width, height = (round(scale * side) for side in radiograph.size)
    colours = (255 * matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3]).round().astype(np.uint8)
    values, low, high = found.over((width, height)), float(found.grid.min()), float(found.grid.max())
    seen = ~np.isnan(values)
    index = (255 * (np.where(seen, values, low) - low) / (high - low or 1.0)).clip(0, 255).astype(np.uint8)
    greys = radiograph.resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
    opacity = (255 * np.linspace(*OPACITY, 256)).astype(np.uint8)
    coloured = Image.composite(Image.fromarray(colours[index]), greys, Image.fromarray(opacity[index] * seen))

    sizes = Sizes.for_picture(width, height)
    font, margin = ImageFont.load_default(size=sizes.font), sizes.line // 2
    against = "" if line["against"] is None else f' against "{line["against"]}"'
    kind = "Cosine" if line["against"] is None else "Difference of cosines"
    words = [(TEXT, part) for part in wrapped(f'"{line["text"]}"{against}', width - sizes.line, font)]
    words += [
        (TEXT, part)
        for part in wrapped(f"{kind} of the whole radiograph: {found.cosine:.3f}", width - sizes.line, font)
    ]
    words += [(FAINT, part) for part in wrapped(WHAT_IT_IS, width - sizes.line, font)]
    canvas = Image.new("RGB", (width, height + (len(words) + 3) * sizes.line))
    canvas.paste(coloured)
    draw, y = ImageDraw.Draw(canvas), height + margin
    bar = Image.composite(
        Image.fromarray(colours[None]), Image.new("RGB", (256, 1), 3 * (MID_GREY,)), Image.fromarray(opacity[None])
    )
    canvas.paste(bar.resize((width - 2 * margin, sizes.line), Image.Resampling.BILINEAR), (margin, y))
    for x, value, anchor in (
        (margin, low, "la"),
        (width // 2, (low + high) / 2, "ma"),
        (width - margin, high, "ra"),
    ):
        draw.text((x, y + sizes.line + sizes.line // 4), f"{value:.3f}", TEXT, font, anchor)
    for number, (colour, text) in enumerate(words):
        draw.text((margin, y + (number + 2) * sizes.line + margin), text, colour, font)
    # Warnings, caution, checkpoint and what it may not be used for stand below, as on other pictures.
    nothing = {"findings": [], "diagnoses": [], "malformed": {}}
    return overlay(canvas, {**line, **nothing})


def wrapped(text: str, width: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """The words of a text in lines of at most `width` pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


# --- The program -----------------------------------------------------------------------------------------------------


@program
def main(args: ExplainArguments) -> int:
    output_dir = Path(args.output_dir)
    texts = list(dict.fromkeys(args.texts))
    with refuse_bad_input():
        model, processor = load_cxr_clip(args.model_name_or_path)
        model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        vectors = sentence_vectors(model, processor, texts, args.against)
        source = source_of(args.model_name_or_path, model.config.to_dict())
        checkpoint = {**source.line(), "checkpoint_sha256": checkpoint_sha256(args.model_name_or_path)}
    source.warn()
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / MAPS
    lines = complete_lines(path)
    done, names = {_question(line) for line in lines}, Names(line["grid"] for line in lines)
    inbox = Files(args.radiographs)
    made = 0
    with path.open("a", encoding="utf-8") as file:
        for name, data, digest in tqdm(inbox.each(), total=len(inbox.paths), desc="Radiographs"):
            common = {"file": name, "sha256": digest}
            asked = [{**common, "text": text, "against": args.against, **checkpoint} for text in texts]
            open_ones = [number for number, line in enumerate(asked) if _question(line) not in done]
            made += len(texts) - len(open_ones)
            radiograph = inbox.radiograph(name, data, processor.windowing) if open_ones else None
            if radiograph is None:
                continue
            found = similarity_maps(model, processor, radiograph, vectors[open_ones])
            for number, one in zip(open_ones, found, strict=True):
                line = asked[number] | line_of(one, names.free(Path(name).stem))
                done.add(_question(line))
                with replacing(output_dir / line["grid"]) as temporary, temporary.open("wb") as array:
                    np.save(array, one.grid)
                save(picture_of(radiograph, one, line), output_dir / line["overlay"])
                file.write(json.dumps(line) + "\n")
                made += 1
            file.flush()
    print(f"{path}: {made} maps; {inbox.failures} radiographs could not be used; {inbox.skipped} files skipped")
    return 1 if inbox.failures or not made else 0


class Files:
    """The files that a program is given, one by one, by names that say nothing about the machine.

    Attributes:
        paths: of all that may be radiographs.
        failures: how many could not be used; the reasons go to standard error.
        skipped: how many are no radiographs: pictures that were drawn, DICOM objects without pixels, texts.
    """

    def __init__(self, radiographs: Sequence[str]):
        listings = [(Path(given), files_below([Path(given)])) for given in radiographs]
        self.paths = {path: _name_below(given, path) for given, listing in listings for path in listing.files}
        self.failures, self.skipped = 0, sum(len(listing.drawn) for _, listing in listings)

    def each(self) -> Iterator[tuple[str, bytes, str]]:
        """Name, bytes and SHA-256 of the files that can be read and hold no drawn picture."""
        for path, name in self.paths.items():
            try:
                if not path.is_file() or path.stat().st_size > MAX_BYTES:
                    load_radiograph(path)  # it says what is wrong, and reads nothing
                data = path.read_bytes()
            except OSError as error:
                self._refuse(unusable(name, f"it cannot be opened ({error.strerror})"))
            except RadiographError as error:
                self._refuse(error)
            else:
                if is_drawn(data):
                    self.skipped += 1
                else:
                    yield name, data, hashlib.sha256(data).hexdigest()

    def radiograph(self, name: str, data: bytes, windowing: str) -> Image.Image | None:
        """The radiograph of a file's bytes; None of what is none, which is counted."""
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                picture = load_radiograph({"bytes": data, "path": name}, windowing)
        except RadiographError as error:
            if other_kind(data, Path(name).name) is None:
                self._refuse(error)
            else:
                self.skipped += 1
            return None
        for note in notes:
            tqdm.write(str(note.message), file=sys.stderr)
        return picture

    def _refuse(self, error: RadiographError) -> None:
        self.failures += 1
        tqdm.write(str(error), file=sys.stderr)


class Names:
    """STEM_1, STEM_2, ...: names of maps, also where two radiographs have one stem.

    Args:
        grids: the files of maps that are there.
    """

    def __init__(self, grids: Iterable[str]):
        self.last: dict[str, int] = {}
        for grid in grids:
            stem, _, number = grid.removesuffix(".npy").rpartition("_")
            self.last[stem] = max(int(number), self.last.get(stem, 0))

    def free(self, stem: str) -> str:
        """The next name of a stem."""
        self.last[stem] = self.last.get(stem, 0) + 1
        return f"{stem}_{self.last[stem]}"


def line_of(found: SimilarityMap, name: str) -> dict[str, Any]:
    """What a line of `maps.jsonl` says of a map; boxes are in pixels of the radiograph as given."""
    width, height = found.size
    return {
        "grid": f"{name}.npy",
        "overlay": f"{name}.png",
        "cosine": round(found.cosine, 6),
        "largest": round(float(found.grid.max()), 6),
        "box": _pixels(found.box(*found.largest)),
        "seen": _pixels(found.seen),
        "width": width,
        "height": height,
        "warnings": list(found.warnings),
    }


def source_of(name: str, config: Mapping[str, Any]) -> Provenance:
    """Where a map is from; a CXR-CLIP's training on pairs, which names no tasks, is what teaches it to answer here."""
    record = [{**entry, "tasks": ["pairs"]} for entry in config.get("training_record") or []]
    if "cxr_clip" in (config.get("base_models") or []):
        record.insert(0, {"data_set": {"name": PUBLISHED}, "tasks": ["pairs"]})
    found = provenance(name, {**config, "training_record": record})
    cautions = [found.caution, None if config["image_pooling"] == "mean" else NOT_POOLED]
    return Provenance(found.checkpoint, found.trained_on, "; ".join(filter(None, cautions)) or None)


def checkpoint_sha256(name: str) -> str | None:
    """One digest of all that makes a checkpoint's maps; None of a repository on the Hub, which is no folder."""
    if not Path(name).is_dir():
        return None
    settings = [file.read_bytes() for file in sorted(Path(name).glob("*.json"))]
    digests = [*sorted(weights_sha256(name).items()), *(hashlib.sha256(data).hexdigest() for data in settings)]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _question(line: Mapping[str, Any]) -> tuple:
    return tuple(line[key] for key in ("file", "sha256", "text", "against", "checkpoint", "checkpoint_sha256"))


def _name_below(given: Path, path: Path) -> str:
    """A file's path below the folder that was given; a file that was given is its name alone."""
    return path.relative_to(given).as_posix() if path != given and path.is_relative_to(given) else path.name


def _pixels(box: Box) -> dict[str, int]:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), map(round, box), strict=True))


def _turned_size(radiograph: Image.Image) -> tuple[int, int]:
    """(width, height) in the standard view."""
    turn = radiograph.info.get("turn")
    return radiograph.size if turn is None else Image.new("1", radiograph.size).transpose(turn).size


if __name__ == "__main__":
    sys.exit(main(*parse([ExplainArguments], None, "explain.py", __doc__)))
