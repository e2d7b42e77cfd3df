"""Findings, boxes and diagnoses of radiographs, as JSON and as pictures with the boxes drawn.

    python inference_scripts/predict.py --model_name_or_path outputs/demo/checkpoint \\
        --output_dir outputs/predictions radiograph.dicom more.png folder_of_radiographs

Reads DICOM, PNG and JPEG; from a folder it takes every file below it. Writes `predictions.jsonl`, a line for each
radiograph, and overlay PNGs. A file that cannot be used is named with the reason, the others are answered; the status
is 1. The same command again goes on where an interrupted run stopped.

    ... --threshold operating_point     # findings from the thresholds on that calibrate.py chose for the checkpoint
    ... --no-constrained                # plain decoding: answers may be malformed
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from processing.dicom import RadiographError
from processing.pipeline_litegpt import ChestXrayFindingsPipeline
from processing.radiograph import load_radiograph
from train_scripts.checkpoint import load_checkpoint
from train_scripts.files import complete_lines, refuse_bad_input

MARGIN = 0.03  # of the overlay's height, for a line of text
MIN_OVERLAY = 512
COLOURS = ("#ff5a5f", "#ffd166", "#06d6a0", "#4cc9f0", "#f78c6b", "#c77dff", "#a3e635", "#f472b6")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("radiographs", nargs="+", type=Path, help="DICOM, PNG or JPEG files, or folders of them")
    parser.add_argument(
        "--model_name_or_path", required=True, help="a LiteGPT checkpoint or adapter: folder or Hub repository"
    )
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--batch_size", type=int, default=8, help="radiographs read and answered together")
    parser.add_argument(
        "--constrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="answers in the answer language alone, with the checkpoint's labels",
    )
    parser.add_argument(
        "--threshold",
        type=threshold,
        help="leave out findings with a smaller score; operating_point: the checkpoint's own threshold for each label",
    )
    args = parser.parse_args(arguments)

    predictions = args.output_dir / "predictions.jsonl"
    answered, pending = answered_and_pending(parser, args, predictions)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with refuse_bad_input():
        model, processor = load_checkpoint(args.model_name_or_path)
        pipe = ChestXrayFindingsPipeline(
            model=model.eval(),
            processor=processor,
            device=device,
            constrained=args.constrained,
            threshold=args.threshold,
        )
    settings = {"model": args.model_name_or_path, "constrained": args.constrained, "threshold": args.threshold}
    failures = 0
    with predictions.open("a", encoding="utf-8") as file:
        for start in tqdm(range(0, len(pending), args.batch_size), desc="Radiographs", unit="batch"):
            paths = pending[start : start + args.batch_size]
            batch = list(readable(paths, pipe.processor.windowing))
            failures += len(paths) - len(batch)
            outputs = pipe([radiograph for _, radiograph in batch], batch_size=args.batch_size) if batch else []
            for (path, radiograph), output in zip(batch, outputs, strict=True):
                name = f"{len(answered):05d}_{path.stem}.png"
                overlay(radiograph, output).save(args.output_dir / name)
                size = {"width": radiograph.width, "height": radiograph.height}
                line = {"file": str(path), **settings, **size, **output, "overlay": name}
                answered.add(_question(line))
                file.write(json.dumps(line) + "\n")
            file.flush()
    print(f"{predictions}: {len(answered)} radiographs answered; {failures} could not be used")
    return 1 if failures or not answered else 0


def threshold(text: str) -> float | str:
    return text if text == "operating_point" else float(text)


def answered_and_pending(
    parser: argparse.ArgumentParser, args: argparse.Namespace, predictions: Path
) -> tuple[set[tuple], list[Path]]:
    """What an interrupted run answered, and the radiographs asked for that it did not answer with these settings."""
    missing = [str(path) for path in args.radiographs if not path.exists()]
    if missing:
        parser.error(f"no such file or folder: {', '.join(missing)}")
    predictions.parent.mkdir(parents=True, exist_ok=True)
    answered = {_question(line) for line in complete_lines(predictions)}
    settings = {"model": args.model_name_or_path, **vars(args)}
    pending = [
        path for path in files_below(args.radiographs) if _question({**settings, "file": str(path)}) not in answered
    ]
    return answered, pending


def _question(line: dict[str, Any]) -> tuple:
    # The lines of `ask_server.py` have no threshold, older ones neither of the last two.
    return line["file"], line["model"], line.get("constrained"), line.get("threshold")


def readable(paths: Sequence[Path], windowing: str) -> Iterator[tuple[Path, Image.Image]]:
    """The radiographs that can be used; what is wrong with the others, or odd about these, goes to standard error."""
    for path in paths:
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                radiograph = load_radiograph(path, windowing)
            for note in notes:
                tqdm.write(str(note.message), file=sys.stderr)
            yield path, radiograph
        except RadiographError as error:
            tqdm.write(str(error), file=sys.stderr)


def files_below(paths: Sequence[Path]) -> Iterator[Path]:
    """The files themselves and every file below the folders, in order; hidden files are left out."""
    for path in paths:
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith("."))
        else:
            yield path


def overlay(radiograph: Image.Image, output: dict[str, Any]) -> Image.Image:
    """The radiograph with the findings' boxes and labels drawn, the diagnoses below it.

    Args:
        radiograph: as the boxes' pixels refer to it; small ones are enlarged for legible text.
        output: of the `chest-xray-findings` pipeline.
    """
    scale = max(1.0, MIN_OVERLAY / min(radiograph.size))
    width, height = (round(scale * side) for side in radiograph.size)
    line = max(14, round(MARGIN * height))
    canvas = Image.new("RGB", (width, height + 2 * line))
    canvas.paste(radiograph.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=round(0.8 * line))
    colours = {}
    for finding in output["findings"]:
        colour = colours.setdefault(finding["label"], COLOURS[len(colours) % len(COLOURS)])
        box = [scale * finding["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        draw.rectangle(box, outline=colour, width=max(2, line // 8))
        text = f"{finding['label']} {finding['score']:.2f}"
        x = max(0, min(box[0], width - draw.textlength(text, font=font)))
        y = box[1] - line if box[1] >= line else box[3]
        draw.rectangle([x, y, x + draw.textlength(text, font=font), y + line], fill="#000000")
        draw.text((x, y), text, fill=colour, font=font)
    malformed = [f"{task}: {reason}" for task, reason in output["malformed"].items() if reason]
    diagnoses = ", ".join(f"{diagnosis['label']} {diagnosis['score']:.2f}" for diagnosis in output["diagnoses"])
    draw.text((line // 2, height + line // 2), "; ".join(malformed) or diagnoses, fill="#ffffff", font=font)
    return canvas


if __name__ == "__main__":
    sys.exit(main())
