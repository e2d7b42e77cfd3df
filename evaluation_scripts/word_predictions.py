"""What a checkpoint answers in words to questions about rows, as lines of a file, and what it believes of sentences.

    lines = answer_words(args, [(0, "refer", "enlarged heart"), (0, "report", None)], rows, path, pipe)
    lines[0, "refer", "enlarged heart"]
    # {"image_id": "c0ffee", "task": "refer", "about": "enlarged heart", "answer": "Boxes of this phrase are ...",
    #  "phrases": [{"phrase": "enlarged heart", "present": 0.9, "boxes": [{"score": 0.8, "box": [...]}]}],
    #  "malformed": None}
    sentence_beliefs(args, [(0, "The heart is enlarged.")], "report", rows, path, pipe)
    # {(0, "The heart is enlarged."): [2.1]}     log-odds of each sentence against its contrary

In: numbers of rows, and what is asked about each. Out: a line a question, in the file and by question; those that the
file already has are not asked for again. Pictures are read one by one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm

from litegpt.common.files import complete_lines
from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.rows import row_picture
from litegpt.evaluation_scripts.arguments import WordAnsweringArguments
from litegpt.evaluation_scripts.predictions import doubts_unsaid, refuse_other_settings, what_is_asked
from litegpt.modeling_litegpt.checkpoints import load_processor
from litegpt.processing.answer_maps import PIXELS
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.sentence_truth import sentence_log_odds
from litegpt.processing.tasks import GROUNDED_REPORT, REPORT, TASKS, join_question, shows_study
from litegpt.processing.word_answers import spans_of_sentences

Key = tuple[int, str, str | None]  # a row's number, a task, and what a question is about
OTHER = "of another checkpoint, split or data set, or decoded or calibrated in another way"


def answer_words(
    args: WordAnsweringArguments,
    wanted: Iterable[Key],
    rows: Dataset,
    path: Path,
    pipe: Callable[[], ChestXrayFindingsPipeline],
    others: Mapping[int, int] | None = None,
) -> dict[Key, dict[str, Any]]:
    """The lines of all that is wanted, those that `path` already has and the missing ones, which are appended.

    Args:
        wanted: what is wanted twice is asked once.
        rows: with `image_id` and `image`.
        pipe: gives the pipeline, where an answer is missing.
        others: by row another one that shows its study from another side, for reports.

    Raises:
        Refusal: `path` holds answers of another checkpoint, of other data or of another way of decoding; a picture
            cannot be read.
    """
    others, wanted = others or {}, list(dict.fromkeys(wanted))
    refuse_other_settings(settings(args) | {"second_view": bool(others)}, path, OTHER)
    image_ids = rows["image_id"][:]
    done = {(line["image_id"], line["task"], line["about"]): line for line in complete_lines(path)}
    pending: dict[str, dict[int, list[str | None]]] = {}
    for number, task, about in wanted:
        if (image_ids[number], task, about) not in done:
            pending.setdefault(task, {}).setdefault(number, []).append(about)
    asked = pipe() if pending else None
    with path.open("a", encoding="utf-8") as file, doubts_unsaid():
        # A task at a time: the answers of one are of similar length, so a batch waits less for its longest.
        for task, by_row in pending.items():
            with tqdm(total=sum(map(len, by_row.values())), desc=f"Answers [{task}]", mininterval=1) as progress:
                for number, output in _outputs(asked, rows, task, by_row, others, args):
                    for line in word_lines(image_ids[number], task, by_row[number], output):
                        if shows_study(task) and number in others:
                            line["second_view"] = image_ids[others[number]]
                        done[line["image_id"], line["task"], line["about"]] = line
                        file.write(json.dumps(line) + "\n")
                        progress.update()
                    file.flush()
    return {(number, task, about): done[image_ids[number], task, about] for number, task, about in wanted}


def settings(args: WordAnsweringArguments) -> dict[str, Any]:
    """What answers depend on."""
    processor = load_processor(args.model_name_or_path)
    return {
        **what_is_asked(args),
        "template_words": args.template_words,
        "max_new_tokens": args.max_new_tokens,
        **pipeline_views(args),
        "temperatures": processor.score_temperatures,
        "sentence_calibration": processor.sentence_calibration,
    }


def pipeline_views(args: WordAnsweringArguments) -> dict[str, int]:
    """In how many moved views radiographs are shown, where that is asked for."""
    views = vars(args).get("views", 0)  # reports, by which sentences are calibrated, have none
    return {"views": views} if views else {}


def _outputs(
    pipe: ChestXrayFindingsPipeline,
    rows: Dataset,
    task: str,
    by_row: Mapping[int, Sequence[str | None]],
    others: Mapping[int, int],
    args: WordAnsweringArguments,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, what the pipeline returns of it), in the order of the rows."""

    def inputs() -> Iterator[dict[str, Any]]:
        for number, abouts in by_row.items():
            shown = [number, *([others[number]] if number in others and shows_study(task) else [])]
            pictures = [named_picture(rows, one) for one in shown]
            yield {"images": pictures, "tasks": [join_question(task, about) for about in abouts]}

    options = {"batch_size": args.batch_size, "max_new_tokens": args.max_new_tokens, **pipeline_views(args)}
    outputs = pipe(inputs(), relative_boxes=True, **options)
    yield from zip(by_row, outputs, strict=True)


def named_picture(rows: Dataset, number: int) -> Any:
    """A row's picture.

    Raises:
        Refusal: it cannot be read; the sentence names the row.
    """
    try:
        return row_picture(rows, number)
    except ValueError as error:
        raise Refusal(f"{rows[number : number + 1]['image_id'][0]}: {error}") from None


def word_lines(
    image_id: str, task: str, abouts: Sequence[str | None], output: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The pipeline's output for questions of one task as lines; boxes are xyxy in [0, 1], a malformed one has none.

    Args:
        abouts: what the questions are about, in the order in which they were asked, none twice.
    """
    kind = TASKS[task].kind
    entries = iter(output[kind.output])
    for about in abouts:
        question = join_question(task, about)
        malformed = output["malformed"][question]
        if malformed is not None:
            of_question = []
        elif kind in (REPORT, GROUNDED_REPORT):  # such a question is the only one of its task
            of_question = list(entries)
        else:
            of_question = [next(entries)]
        yield {
            "image_id": image_id,
            "task": task,
            "about": about,
            "answer": output["answers"][question],
            kind.output: [_plain_entry(entry) for entry in of_question],
            "malformed": malformed,
            **({"warnings": output["warnings"]} if output.get("warnings") else {}),
        }


def _plain_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with its boxes as lists of five digits."""
    entry = dict(entry)
    if "box" in entry:
        entry["box"] = [round(value, 5) for value in entry["box"].values()]
    if "boxes" in entry:
        entry["boxes"] = [{**box, "box": [round(value, 5) for value in box["box"].values()]} for box in entry["boxes"]]
    return entry


# --- Beliefs in sentences --------------------------------------------------------------------------------------------


def sentence_beliefs(
    args: WordAnsweringArguments,
    wanted: Iterable[tuple[int, str]],
    task: str,
    rows: Dataset,
    path: Path,
    pipe: Callable[[], ChestXrayFindingsPipeline],
) -> dict[tuple[int, str], list[float | None]]:
    """The log-odds of each sentence of answers about rows, whoever gave the answers; None of one without a contrary.

    Args:
        wanted: numbers of rows, and answers, each well formed.
        task: what the answers answer, "report" or "grounded_report".
        path: a line an answer, appended to.
        pipe: as for `answer_words`.

    Raises:
        Refusal: as `answer_words`.
    """
    wanted = list(dict.fromkeys(wanted))
    refuse_other_settings({**settings(args), "sentence_calibration": None, "task": task}, path, OTHER)
    image_ids = rows["image_id"][:]
    done = {(line["image_id"], line["answer"]): line["log_odds"] for line in complete_lines(path)}
    pending = [(number, answer) for number, answer in wanted if (image_ids[number], answer) not in done]
    asked = pipe() if pending else None
    with path.open("a", encoding="utf-8") as file, doubts_unsaid(), torch.no_grad():
        for start in tqdm(range(0, len(pending), args.batch_size), desc="Sentences", mininterval=1, delay=1e-3):
            batch = pending[start : start + args.batch_size]
            pictures = [named_picture(rows, number) for number, _ in batch]
            believed = log_odds(asked, pictures, task, [answer for _, answer in batch])
            for (number, answer), of_answer in zip(batch, believed, strict=True):
                done[image_ids[number], answer] = of_answer
                file.write(json.dumps({"image_id": image_ids[number], "answer": answer, "log_odds": of_answer}) + "\n")
            file.flush()
    return {(number, answer): done[image_ids[number], answer] for number, answer in wanted}


def log_odds(
    pipe: ChestXrayFindingsPipeline, pictures: Sequence[Any], task: str, answers: Sequence[str]
) -> list[list[float | None]]:
    """Of each picture the log-odds of the sentences of its answer, each behind those that stand before it."""
    model, processor = pipe.model, pipe.processor
    prompt = processor.prompt(task)
    inputs = processor(
        images=list(pictures), text=[prompt] * len(pictures), add_special_tokens=False, return_tensors="pt"
    ).to(pipe.device)
    pixels = {name: inputs.pop(name) for name in PIXELS if name in inputs}
    image = model.get_image_features(patch_features=model.get_patch_features(**pixels), return_dict=True)
    spans = [spans_of_sentences(task, answer) for answer in answers]
    return sentence_log_odds(model, processor, {**inputs, "mm_encoder_outputs": {"image": image}}, answers, spans)
