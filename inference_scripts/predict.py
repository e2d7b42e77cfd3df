"""Findings, boxes and diagnoses of radiographs, as JSON and as pictures with the boxes drawn.

    litegpt predict --model_name_or_path outputs/demo/checkpoint --output_dir outputs/predictions \\
        radiograph.dicom more.png folder_of_radiographs

Reads DICOM, PNG and JPEG; from a folder it takes every file below it. Writes `predictions.jsonl`, a line for each
radiograph, and overlay PNGs. A file that cannot be used is named with the reason, the others are answered; the status
is 1. The same command resumes where an interrupted run stopped.

    ... --threshold operating_point     # findings from the thresholds on that calibrate.py chose for the checkpoint
    ... --constrained false             # plain decoding: answers may be malformed
    ... --contact_sheet answers.png     # the first eight that have findings, in one picture
"""

import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.arguments import parse
from litegpt.common.files import complete_lines, replacing
from litegpt.common.overlay import contact_sheet, overlay
from litegpt.common.programs import program, refuse_bad_input
from litegpt.inference_scripts.arguments import PredictArguments
from litegpt.inference_scripts.inbox import answered_and_pending, question, readable
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

ON_A_CONTACT_SHEET = 8


@program
def main(args: PredictArguments) -> int:
    output_dir = Path(args.output_dir)
    settings = {
        "model": args.model_name_or_path,
        "constrained": args.constrained,
        "threshold": args.threshold,
    }
    with refuse_bad_input():
        model, processor = load_checkpoint(args.model_name_or_path)
        pipe = ChestXrayFindingsPipeline(
            model=model.eval(),
            processor=processor,
            device="cuda" if torch.cuda.is_available() else "cpu",
            constrained=args.constrained,
            threshold=args.threshold,
        )
    predictions = output_dir / "predictions.jsonl"
    answered, pending = answered_and_pending(args.radiographs, settings, predictions)
    failures = 0
    with predictions.open("a", encoding="utf-8") as file:
        for start in tqdm(range(0, len(pending), args.batch_size), desc="Radiographs", unit="batch"):
            paths = pending[start : start + args.batch_size]
            batch = list(readable(paths, pipe.processor.windowing))
            failures += len(paths) - len(batch)
            outputs = pipe([radiograph for _, radiograph in batch], batch_size=args.batch_size) if batch else []
            for (path, radiograph), output in zip(batch, outputs, strict=True):
                name = f"{len(answered):05d}_{path.stem}.png"
                with replacing(output_dir / name) as temporary:
                    overlay(radiograph, output).save(temporary, format="PNG")
                size = {"width": radiograph.width, "height": radiograph.height}
                line = {"file": str(path), **settings, **size, **output, "overlay": name}
                answered.add(question(line))
                file.write(json.dumps(line) + "\n")
            file.flush()
    if args.contact_sheet is not None:
        write_contact_sheet(output_dir, complete_lines(predictions), Path(args.contact_sheet))
    print(f"{predictions}: {len(answered)} radiographs answered; {failures} could not be used")
    return 1 if failures or not answered else 0


def write_contact_sheet(output_dir: Path, lines: Iterable[dict[str, Any]], path: Path) -> None:
    """The first overlays that have findings, side by side in one picture; none is made where no line has any."""
    chosen = list(islice((line["overlay"] for line in lines if line["findings"]), ON_A_CONTACT_SHEET))
    if not chosen:
        print(f"{path} is not written: no answer has findings.", file=sys.stderr)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        contact_sheet([Image.open(output_dir / name) for name in chosen]).save(temporary, format="PNG")


if __name__ == "__main__":
    sys.exit(main(*parse([PredictArguments], None, "predict.py", __doc__)))
