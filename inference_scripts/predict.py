"""Findings, boxes and diagnoses of radiographs, as JSON and as pictures with the boxes drawn.

    litegpt predict --model_name_or_path outputs/demo/checkpoint --output_dir outputs/predictions \\
        radiograph.dicom more.png folder_of_radiographs

Reads DICOM, PNG and JPEG; from a folder it takes every file below it, also below links. Writes `predictions.jsonl`, a
line for each radiograph, and overlay PNGs. A file that cannot be used is named with the reason, the others are
answered; the status is 1. What is no image (DICOMDIR, SR, a PDF, a text) is skipped and named at the end. The same
command resumes where an interrupted run stopped, and answers anew what has been replaced since.

    ... --threshold operating_point     # findings from the thresholds on that calibrate.py chose for the checkpoint
    ... --candidates --views 4          # find more: what answers leave out, and several views of each radiograph
    ... --constrained false             # plain decoding: answers may be malformed
    ... --tasks report grounded_report  # other questions: reports, "refer: enlarged heart", "question: ..."
    ... --dicom_out results             # and as DICOM objects, to be sent to a PACS: structured report, boxes to draw;
                                        # of findings and diagnoses alone, free text is filed nowhere
    ... --contact_sheet answers.png     # the first eight that have findings, in one picture
"""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.arguments import parse
from litegpt.common.cpus import usable_cpus
from litegpt.common.files import complete_lines, each_line
from litegpt.common.overlay import Drawing, contact_sheet, has_boxes, save, saved_overlay
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.common.read_ahead import ahead, helping_processes
from litegpt.inference_scripts.answerers import AnswerSettings, LocalAnswerer
from litegpt.inference_scripts.arguments import PredictArguments
from litegpt.inference_scripts.inbox import Inbox, question

if TYPE_CHECKING:
    from litegpt.inference_scripts.dicom_results import DicomResults

ON_A_CONTACT_SHEET = 8


@program
def main(args: PredictArguments) -> int:
    output_dir = Path(args.output_dir)
    asked = (args.model_name_or_path, args.constrained, args.threshold, args.candidates, args.views, args.compiled)
    settings = AnswerSettings(*asked, tuple(args.tasks))
    with refuse_bad_input():
        answerer = LocalAnswerer(settings)
    answerer.source.warn()
    predictions = output_dir / "predictions.jsonl"
    results = dicom_results(args)
    inbox = Inbox(args.radiographs, settings.facts, answerer.source.line(), predictions)

    def answered() -> Iterator[Drawing]:
        readable = inbox.readable(inbox.pending, answerer.processor.windowing, usable_cpus())
        while batch := list(islice(readable, args.batch_size)):
            outputs = answerer.outputs([received.picture for received in batch])
            for received, output in zip(batch, outputs, strict=True):
                line = inbox.answer(received, output)
                line["overlay"] = f"{inbox.next_number:05d}_{Path(received.path).stem}.png"
                inbox.next_number += 1
                picture = received.picture
                yield Drawing(picture, line, answerer.processor.score_thresholds, output_dir / line["overlay"])

    with predictions.open("a", encoding="utf-8") as file, helping_processes(max(1, usable_cpus() - 1)) as pool:
        # While a batch is answered, the last one's pictures are drawn, and the next one's are read.
        lines = ahead(saved_overlay, answered(), pool, most=args.batch_size)
        for line in tqdm(lines, total=len(inbox.pending), desc="Radiographs", unit=" radiographs"):
            file.write(json.dumps(line) + "\n")
            file.flush()
    if results is not None:
        for line in each_line(predictions):  # also those of an earlier run
            if question(line) in inbox.answered:
                results.write(line)
        print(results.summary())
    if args.contact_sheet is not None:
        write_contact_sheet(output_dir, complete_lines(predictions), Path(args.contact_sheet))
    print(inbox.summary())
    return 1 if results is not None and results.failures else inbox.status


def dicom_results(args: PredictArguments) -> "DicomResults | None":
    """Where answers become DICOM objects; None where nobody asks for them.

    Raises:
        Refusal: highdicom is not installed.
    """
    if args.dicom_out is None:
        return None
    try:
        from litegpt.inference_scripts.dicom_results import DicomResults
    except ImportError:
        raise Refusal("--dicom_out needs highdicom: pip install highdicom") from None
    return DicomResults(Path(args.dicom_out), args.dicom_kinds, Path(args.output_dir), args.dicom_source)


def write_contact_sheet(output_dir: Path, lines: Iterable[dict[str, Any]], path: Path) -> None:
    """The first overlays that have boxes, side by side in one picture; none is made where no line has any."""
    # The lines of `litegpt ask` have no overlay.
    drawn = (line["overlay"] for line in lines if "overlay" in line and has_boxes(line))
    chosen = list(islice(drawn, ON_A_CONTACT_SHEET))
    if not chosen:
        print(f"{path} is not written: no answer has boxes.", file=sys.stderr)
        return
    save(contact_sheet([Image.open(output_dir / name) for name in chosen]), path)


if __name__ == "__main__":
    sys.exit(main(*parse([PredictArguments], None, "predict.py", __doc__)))
