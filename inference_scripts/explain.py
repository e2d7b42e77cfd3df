"""Where in a radiograph a model sees what it says: maps, as arrays and as pictures.

    litegpt explain --model_name_or_path outputs/demo/checkpoint --output_dir outputs/maps radiograph.dicom
    litegpt explain --model_name_or_path outputs/cxr_clip/checkpoint --texts "small left pleural effusion." \\
        --output_dir outputs/maps radiograph.dicom folder_of_radiographs

A LiteGPT checkpoint answers each radiograph, and each finding of its answer gets a map: what in the radiograph speaks
for it. A CXR-CLIP checkpoint gives a map for each sentence of --texts: the similarity of each patch to it. Of a
radiograph classifier each label that it calls present gets one: where it sees it.

    ... --findings Cardiomegaly ILD     # of LiteGPT: these findings, as if they had been answered; or these labels
    ... --tokens                        # of LiteGPT: every token of the answer
    ... --method occlusion              # of LiteGPT: slow, and needs no belief in gradients
    ... --against "no effusion."        # of CXR-CLIP: minus the cosines of a contrasting sentence

For each map: `NAME_NUMBER.npy`, the grid of values, a picture of it over the radiograph, and a line of `maps.jsonl`.
The command resumes: what has its line is not computed again. A file that cannot be used is named with the reason, the
others go on, and the status is 1. What a map says, and what it does not: `finding_maps.py`,
`similarity_maps.py`, `label_maps.py`.
"""

import hashlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.addresses import is_remote, place, read_bytes
from litegpt.common.arguments import parse
from litegpt.common.files import complete_lines, replacing, weights_sha256
from litegpt.common.overlay import is_drawn, save
from litegpt.common.programs import program, refuse_bad_input
from litegpt.inference_scripts.arguments import ExplainArguments
from litegpt.inference_scripts.dicom_identity import other_kind
from litegpt.inference_scripts.finding_maps import FindingMaps
from litegpt.inference_scripts.label_maps import LabelMaps
from litegpt.inference_scripts.listing import MAPS, files_below
from litegpt.inference_scripts.radiograph_maps import MapMaker, line_of, picture_of
from litegpt.inference_scripts.similarity_maps import SimilarityMaps
from litegpt.modeling_litegpt import LiteGPTConfig
from litegpt.modeling_litegpt.checkpoints import base_of_adapter
from litegpt.processing.dicom import MAX_BYTES, RadiographError, unusable
from litegpt.processing.radiograph import load_radiograph

MAKERS: dict[str, type[MapMaker]] = {  # by model type
    "litegpt": FindingMaps,
    "cxr_clip": SimilarityMaps,
    "radiograph_classifier": LabelMaps,
}
NAMES = {"litegpt": "LiteGPT", "cxr_clip": "CXR-CLIP", "radiograph_classifier": "radiograph classifier"}
OPTIONS = {
    "litegpt": ("findings", "tokens", "method"),
    "cxr_clip": ("texts", "against"),
    "radiograph_classifier": ("findings", "method"),
}
# What makes two lines answers to one question; a line of the one kind of checkpoint has no keys of the other.
QUESTION = ("file", "sha256", "explains", "method", "text", "against", "checkpoint", "checkpoint_sha256")


@program
def main(args: ExplainArguments) -> int:
    output_dir = Path(args.output_dir)
    with refuse_bad_input():
        maker = map_maker(args)
        checkpoint = {**maker.source.line(), "checkpoint_sha256": checkpoint_sha256(args.model_name_or_path)}
    maker.source.warn()
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / MAPS
    lines = complete_lines(path)
    done, names = Done(lines), Names(line["grid"] for line in lines)
    inbox = Files(args.radiographs)
    made = 0
    with path.open("a", encoding="utf-8") as file:
        for name, data, digest in tqdm(inbox.each(), total=len(inbox.paths), desc="Radiographs"):
            asked = [{"file": name, "sha256": digest, **question, **checkpoint} for question in maker.questions]
            open_ones = [number for number, line in enumerate(asked) if not done.all_of(line)]
            made += sum(done.count(line) for line in asked)
            radiograph = inbox.radiograph(name, data, maker.windowing) if open_ones else None
            if radiograph is None:
                continue
            for number, maps in zip(open_ones, maker.maps(radiograph, open_ones), strict=True):
                for found in maps:
                    if done.has(asked[number] | found.facts):
                        continue
                    line = asked[number] | line_of(found, names.free(Path(name).stem))
                    done.add(line)
                    with replacing(output_dir / line["grid"]) as temporary, temporary.open("wb") as array:
                        np.save(array, found.grid)
                    save(picture_of(radiograph, found, line), output_dir / line["overlay"])
                    file.write(json.dumps(line) + "\n")
                    made += 1
            file.flush()
    print(f"{path}: {made} maps; {inbox.failures} radiographs could not be used; {inbox.skipped} files skipped")
    return 1 if inbox.failures or not made else 0


def map_maker(args: ExplainArguments) -> MapMaker:
    """What answers the program's questions, by what the checkpoint is.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is of another kind, or an option is for one of another kind; it cannot be loaded.
    """
    name = args.model_name_or_path
    if base_of_adapter(name) is not None:  # only LiteGPT has adapters
        kind = "litegpt"
    else:
        kind = LiteGPTConfig.get_config_dict(name)[0].get("model_type")
    if kind not in MAKERS:
        raise ValueError(f"{name}: a checkpoint of {kind}; maps are made of {', '.join(NAMES.values())}.")
    for other in OPTIONS:
        for option in set(OPTIONS[other]) - set(OPTIONS[kind]):
            if getattr(args, option):
                raise ValueError(f"--{option} is for checkpoints of {NAMES[other]}, and {name} is a {NAMES[kind]}.")
    if kind == "cxr_clip" and not args.texts:
        raise ValueError(f"--texts is missing: sentences that {name}, a CXR-CLIP, is to look for.")
    return MAKERS[kind](args)


class Done:
    """Which maps there are, by the lines of `maps.jsonl`: of a question's several a killed run may have made some."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]):
        self.numbers: set[tuple] = set()
        self.counts: Counter[tuple] = Counter()
        self.wanted: dict[tuple, int] = {}
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        question = _question(line)
        self.numbers.add((*question, line.get("number", 1)))
        self.counts[question] += 1
        self.wanted[question] = line.get("maps", 1)

    def has(self, line: Mapping[str, Any]) -> bool:
        """Whether this map is there."""
        return (*_question(line), line.get("number", 1)) in self.numbers

    def count(self, asked: Mapping[str, Any]) -> int:
        """How many maps of a question are there."""
        return self.counts[_question(asked)]

    def all_of(self, asked: Mapping[str, Any]) -> bool:
        """Whether all maps of a question are there."""
        return self.count(asked) == self.wanted.get(_question(asked), -1)


class Files:
    """The files that a program is given, one by one, by names that say nothing about the machine.

    Attributes:
        paths: of all that may be radiographs.
        failures: how many could not be used; the reasons go to standard error.
        skipped: how many are no radiographs: pictures that were drawn, DICOM objects without pixels, texts.
    """

    def __init__(self, radiographs: Sequence[str]):
        listings = [(place(given), files_below([place(given)])) for given in radiographs]
        self.paths = {path: _name_below(given, path) for given, listing in listings for path in listing.files}
        self.failures, self.skipped = 0, sum(len(listing.drawn) for _, listing in listings)

    def each(self) -> Iterator[tuple[str, bytes, str]]:
        """Name, bytes and SHA-256 of the files that can be read and hold no drawn picture."""
        for path, name in self.paths.items():
            try:
                if is_remote(path):
                    data = read_bytes(path, MAX_BYTES)
                elif not path.is_file() or path.stat().st_size > MAX_BYTES:
                    load_radiograph(path)  # it says what is wrong, and reads nothing
                else:
                    data = path.read_bytes()
            except OSError as error:
                self._refuse(unusable(name, f"it cannot be opened ({error.strerror or error})"))
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


def checkpoint_sha256(name: str) -> str | None:
    """One digest of all that makes a checkpoint's maps; None of a repository on the Hub, which is no folder."""
    if not Path(name).is_dir():
        return None
    settings = [file.read_bytes() for file in sorted(Path(name).glob("*.json"))]
    digests = [*sorted(weights_sha256(name).items()), *(hashlib.sha256(data).hexdigest() for data in settings)]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _question(line: Mapping[str, Any]) -> tuple:
    return tuple(line.get(key) for key in QUESTION)


def _name_below(given: Path | str, path: Path | str) -> str:
    """A file's path below the folder that was given; a file that was given is its name alone."""
    if is_remote(path):
        folder = f"{given.rstrip('/')}/"
        return path.removeprefix(folder) if path.startswith(folder) else path.rpartition("/")[2]
    return path.relative_to(given).as_posix() if path != given and path.is_relative_to(given) else path.name


if __name__ == "__main__":
    sys.exit(main(*parse([ExplainArguments], None, "explain.py", __doc__)))
