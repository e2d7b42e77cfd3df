"""Questions about radiographs, of a checkpoint in this process or at a server, answered on the terminal and as JSON.

    litegpt ask --model_name_or_path outputs/words/checkpoint --task refer --phrase "enlarged heart" radiograph.dicom
    litegpt ask ... --task describe --box 389 532 829 758 radiograph.dicom       # pixels of the radiograph
    litegpt ask ... --task question --question "Is there a fracture?" radiograph.dicom
    litegpt ask ... --task report --second_view lateral.dicom radiograph.dicom
    litegpt ask ... --tasks "refer: enlarged heart" "refer: pneumothorax" report --output_dir outputs/asked radiographs
    litegpt ask ... radiographs                                                  # findings and diagnoses

With `--base_url` a server has the checkpoint (vLLM, or another one that speaks OpenAI's chat completions):

    make serve CHECKPOINT=outputs/demo/checkpoint PORT=8000
    litegpt ask --base_url http://127.0.0.1:8000/v1 --model_name_or_path outputs/demo/checkpoint radiograph.dicom

The radiographs (DICOM, PNG, JPEG) are read here, and to a server their pixels alone are sent: no tag of a DICOM file
leaves this machine. Of the checkpoint then only the processor is read: labels, instructions, window. Boxes and `refer`
are held by a grammar; other servers than vLLM may refuse it (`--constrained false` leaves it out). A box's score
differs from this process's by some hundredths, as a server tells 20 tokens in a coordinate's place; a diagnosis's is
the probability of its words, not the sum over all answers; a report's sentences have no probability.

Words that no grammar holds are unverified. Of one radiograph the answers are on the terminal in words. With
`--output_dir` `predictions.jsonl` has a line for each, as `predict.py` writes it, and the same command resumes where
an interrupted run stopped, and answers anew what has been replaced since; other questions have lines of their own. A
file that cannot be used is named with the reason, the others are answered; the status is 1. What is no image is
skipped and named at the end.
"""

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm.auto import tqdm

from litegpt.common.addresses import place
from litegpt.common.addresses import shown as shown_name
from litegpt.common.answers_in_words import in_words
from litegpt.common.arguments import parse
from litegpt.common.files import each_line
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.inference_scripts.answerers import Answerer, AnswerSettings, LocalAnswerer, Pictures, ServerAnswerer
from litegpt.inference_scripts.arguments import AskArguments
from litegpt.inference_scripts.inbox import Inbox, Received, Rejected, bytes_and_digest, question, sort_out
from litegpt.processing.doubts import unusable


@program
def main(args: AskArguments) -> int:
    settings = AnswerSettings(
        args.model_name_or_path,
        args.constrained,
        views=args.views,
        tasks=tuple(args.tasks),
        max_new_tokens=args.max_new_tokens,
    )
    with refuse_bad_input():
        answerer = ServerAnswerer(settings, args.base_url) if args.base_url else LocalAnswerer(settings)
    answerer.source.warn()
    second = None if args.second_view is None else second_view(args.second_view, answerer.processor.windowing)
    facts = {**settings.facts, **({} if second is None else second_facts(second))}
    with nullcontext(args.output_dir) if args.output_dir else TemporaryDirectory(prefix="litegpt_ask_") as folder:
        predictions = Path(folder) / "predictions.jsonl"
        inbox = Inbox(args.radiographs, facts, answerer.source.line(), predictions)
        radiographs = usable(inbox, answerer, args.box)
        progress = tqdm(radiographs, total=len(inbox.pending), desc="Radiographs", unit="image")
        answer = answered_here if args.base_url is None else answered_there
        with refuse_bad_input(), predictions.open("a", encoding="utf-8") as file:
            for received, output in answer(answerer, progress, args.concurrency, second):
                line = inbox.answer(received, output)
                file.write(json.dumps(line) + "\n")
                file.flush()
                if not args.output_dir:
                    say(line)
        if args.output_dir and len(inbox.asked) == 1:  # also where an earlier run has asked it
            for line in each_line(predictions):
                if question(line) in inbox.asked:
                    say(line)
        if args.output_dir or inbox.status:
            print(inbox.summary() if args.output_dir else inbox.outcome())
    return inbox.status


def say(line: dict[str, Any]) -> None:
    """One answer on the terminal."""
    tqdm.write("\n".join([shown_name(line["file"]), *(f"  {said.text}" for said in in_words(line))]))


def second_view(path: str, windowing: str) -> Received:
    """Another radiograph of the study.

    Raises:
        Refusal: it cannot be used.
    """
    received = sort_out(path, lambda: bytes_and_digest(place(path)), windowing)
    if isinstance(received, Rejected):
        raise Refusal(received.reason or f"--second_view {path}: it is no radiograph ({received.kind})")
    return received


def second_facts(second: Received) -> dict[str, Any]:
    """What a line says of it: another view is another question."""
    return {"second_view": second.facts["file"], "second_view_sha256": second.facts["sha256"]}


def usable(inbox: Inbox, answerer: Answerer, box: list[float] | None) -> Iterator[Received]:
    """The radiographs that can be read, and that have the box where one is asked about."""
    for received in inbox.readable(inbox.pending, answerer.processor.windowing):
        width, height = received.picture.size
        if box is not None and not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            inbox.failures += 1
            reason = f"--box {' '.join(f'{side:g}' for side in box)} is none in its {width} x {height} pixels"
            tqdm.write(str(unusable(str(received.path), reason)), file=sys.stderr)
            continue
        yield received


def shown(received: Received, second: Received | None) -> Pictures:
    return received.picture if second is None else (received.picture, second.picture)


def answered_here(
    answerer: LocalAnswerer, radiographs: Iterable[Received], concurrency: int, second: Received | None
) -> Iterator[tuple[Received, dict[str, Any]]]:
    """The radiographs with their outputs, in their order; `concurrency` of them are answered together."""
    radiographs = iter(radiographs)
    while batch := list(islice(radiographs, concurrency)):
        yield from zip(batch, answerer.outputs([shown(received, second) for received in batch]), strict=True)


def answered_there(
    answerer: ServerAnswerer, radiographs: Iterable[Received], concurrency: int, second: Received | None
) -> Iterator[tuple[Received, dict[str, Any]]]:
    """The same of a server; it is asked about the next one as soon as it has answered one."""
    (client,) = answerer.clients
    waiting: deque[tuple[Received, Future]] = deque()
    with ThreadPoolExecutor(concurrency) as threads:
        try:
            for received in radiographs:
                waiting.append((received, threads.submit(answerer.output, client, shown(received, second))))
                if len(waiting) > concurrency:  # one more than are asked about: no thread waits for the reading
                    received, output = waiting.popleft()
                    yield received, output.result()
            while waiting:
                received, output = waiting.popleft()
                yield received, output.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main(*parse([AskArguments], None, "ask.py", __doc__)))
