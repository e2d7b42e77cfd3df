"""Probabilities of a report's sentences that can be taken at their word, and the one below which they are doubtful.

    litegpt calibrate-words --model_name_or_path outputs/words/checkpoint --data_dir outputs/demo/phantoms \\
        --split 'train[-300:]' --template_words --output_dir outputs/words/calibration

The split must be one that the checkpoint was not trained on, and not the one that it is tested on. It writes a report
of each radiograph (`word_predictions.jsonl`; an interrupted run resumes after the last one). Of each sentence it is
known whether it is true: of template words by the row's labels and boxes (`--truth facts`), else by the labels that
rules read in it and in the radiograph's own report (`--truth labels`; what these do not tell is left out). From the
log-odds of the sentences against their contraries come

- slope and intercept, with which log-odds become probabilities (Platt scaling, `metrics/sentence_truth.py`),
- the lowest probability from which on 95 % of the sentences are true or, where nearly as many are true anyway, half of
  the share of false ones is gone: those below it are marked as doubtful.

Where fewer than 30 of the sentences that it writes are true, or false, those of another radiograph's true report are
taken beside them, and it is said. All is written into the checkpoint's processor_config.json (`sentence_calibration`),
for the pipeline and evaluate_words.py; nothing else in the checkpoint changes. `calibration_words.json` says what was
gained. Calibrating a checkpoint again starts from its log-odds.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from litegpt.common.arguments import parse
from litegpt.common.files import write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.arguments import WordCalibrationArguments
from litegpt.evaluation_scripts.calibrate import writable_processor_config
from litegpt.evaluation_scripts.evaluate_words import key_of, questions_of_tasks, with_words
from litegpt.evaluation_scripts.predictions import load_pipeline
from litegpt.evaluation_scripts.questions import label_names
from litegpt.evaluation_scripts.sentence_facts import sentence_truths, truth_of_rows
from litegpt.evaluation_scripts.sentence_scores import ToldSentence, borrowed_reports, told_sentences
from litegpt.evaluation_scripts.word_predictions import answer_words, sentence_beliefs
from litegpt.evaluation_scripts.word_questions import WordQuestion
from litegpt.metrics.sentence_truth import (
    PRECISION,
    SentenceCalibration,
    fit_sentence_calibration,
    operating_point,
    probabilities,
    sentence_figures,
)
from litegpt.modeling_litegpt.checkpoints import load_processor
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.sentence_truth import CALIBRATION

MIN_SENTENCES = 30  # of either kind; fewer do not tell a calibration
MARK_ALL = 1.0  # the threshold where no other keeps enough true sentences


@program
def main(args: WordCalibrationArguments) -> None:
    output_dir = Path(args.output_dir)
    with refuse_bad_input():
        processor_config = writable_processor_config(args.model_name_or_path)
        rows = with_words(args, load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc))
        (asked,) = questions_of_tasks(rows, args.tasks[:1], load_processor(args.model_name_or_path)).values()
    if args.split.startswith("test"):
        print(f"{args.split} is calibrated on: figures of the same radiographs will look better than they are.")
    output_dir.mkdir(parents=True, exist_ok=True)
    written, borrowed = told_of_split(args, rows, asked, output_dir)
    result = {"split": args.split, "radiographs": len(rows), "task": asked[0].task, "truth": truth_of_rows(args)}
    result |= calibration(written, borrowed)
    with refuse_bad_input():
        write_into_checkpoint(processor_config, result)
        write_text(output_dir / "calibration_words.json", json.dumps(result, indent=2) + "\n")
    point = result["operating_point"]
    print(
        f"{output_dir / 'calibration_words.json'}: slope {result['slope']:.3f}, intercept {result['intercept']:.3f}; "
        + (
            "no probability keeps enough true sentences: all are marked as doubtful."
            if point is None
            else f"doubtful below {point['threshold']:.3f}: {point['recall']:.0%} of the true sentences are kept, "
            f"and of what is kept {point['precision']:.1%} is true."
        )
    )


def told_of_split(
    args: WordCalibrationArguments, rows: Dataset, asked: Sequence[WordQuestion], output_dir: Path
) -> tuple[list[ToldSentence], list[ToldSentence]]:
    """The sentences that the checkpoint writes, and those of other radiographs' reports, with their log-odds."""

    @functools.cache
    def pipe() -> ChestXrayFindingsPipeline:
        with refuse_bad_input():
            return load_pipeline(args, rows)

    path = output_dir / "word_predictions.jsonl"
    if (output_dir / "calibration_words.json").exists():
        path.unlink(missing_ok=True)  # they would be refused: the checkpoint's calibration has changed
    lines = answer_words(args, [key_of(one) for one in asked], rows, path, pipe)
    kind, labels, task = truth_of_rows(args), tuple(label_names(rows)["finding"]), asked[0].task
    truths = sentence_truths(rows, kind)
    known = [one for one in asked if truths[one.image] is not None]
    answers = [(one.image, lines[key_of(one)]) for one in known]
    written = [(image, line["answer"]) for image, line in answers if line["malformed"] is None and line[task]]
    others = borrowed_reports([one.image for one in known], [one.answer for one in known])
    borrowed = [(one.image, one.answer) for one in others]
    beliefs = sentence_beliefs(args, written + borrowed, task, rows, output_dir / "sentence_beliefs.jsonl", pipe)
    return tuple(
        [
            told
            for image, answer in pairs
            for told in told_sentences(image, task, answer, beliefs[image, answer], truths[image], kind, labels)
            if told.belief is not None
        ]
        for pairs in (written, borrowed)
    )


def calibration(written: Sequence[ToldSentence], borrowed: Sequence[ToldSentence]) -> dict[str, Any]:
    """What `calibration_words.json` says: slope, intercept, operating point, and errors before and after.

    Args:
        written: sentences of the checkpoint, with log-odds.
        borrowed: those of other radiographs' true reports, taken beside them where these are too few.

    Raises:
        Refusal: all sentences are true, or all false.
    """
    true = sum(one.is_true for one in written)
    sentences = list(written)
    if min(true, len(written) - true) < MIN_SENTENCES:
        print(
            f"{true} of {len(written)} sentences that the checkpoint writes are true, which tells no calibration: "
            f"{len(borrowed)} of other radiographs' true reports are taken beside them."
        )
        sentences += borrowed
    log_odds, is_true = np.array([one.belief for one in sentences]), np.array([one.is_true for one in sentences])
    if is_true.all() or not is_true.any():  # none at all, too
        which = "all are true" if is_true.any() else "none is true"
        raise Refusal(
            f"A calibration needs true and false sentences: of {len(sentences)} whose truth is known {which}."
        )
    fitted = fit_sentence_calibration(log_odds, is_true)
    if fitted.slope <= 0:
        print(
            f"The slope is {fitted.slope:.3f}: what the checkpoint believes of sentences says nothing of their truth."
        )
    stated = probabilities(log_odds, fitted)
    before = probabilities(log_odds, SentenceCalibration(CALIBRATION["slope"], CALIBRATION["intercept"]))
    least = max(PRECISION, 1 - (1 - is_true.mean()) / 2)
    point = operating_point(stated, is_true, least)
    return {
        "note": "Chosen on this split: on others expect a higher ECE, and fewer true sentences above the threshold.",
        **fitted._asdict(),
        "threshold": MARK_ALL if point is None else point.threshold,
        "operating_point": point and point._asdict() | {"precision_asked": least},
        "sentences": {
            "written": len(written),
            "borrowed": len(sentences) - len(written),
            "true": int(is_true.sum()),
            "used": len(sentences),
        },
        "auroc": float(sentence_figures(stated, is_true)["auroc",][0]),
        "ece": {
            when: float(sentence_figures(p, is_true)["ece",][0]) for when, p in (("before", before), ("after", stated))
        },
    }


def write_into_checkpoint(path: Path, result: dict[str, Any]) -> None:
    """Puts slope, intercept and threshold into processor_config.json, and keeps all else."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["sentence_calibration"] = {name: result[name] for name in ("slope", "intercept", "threshold")}
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*parse([WordCalibrationArguments], None, "calibrate_words.py", __doc__))
