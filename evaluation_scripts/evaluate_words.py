"""Answers in words of a checkpoint over a split, beside answers that know nothing of the image.

    litegpt evaluate-words --model_name_or_path outputs/words/checkpoint --data_dir outputs/demo/phantoms \\
        --template_words --output_dir outputs/words/evaluation

Every row's own questions are asked: where its phrases are (refer), what is in its boxes (describe), its report, plain
and with boxes (report, grounded_report), its questions (question). Writes `word_predictions.jsonl` (one line a
question; an interrupted run resumes after the last one), `word_metrics.json`, `words.md` and `words.html`.

Beside every figure stand controls: the answer to the same question about another image (the mean of five random
cycles), the most frequent answer of a training split (of phrases none at all, or the mean box of the same phrase), and
the answers about noise and a black picture (of up to 50 images' questions). A report that is always the same and
normal scores high: `words.md` opens with which figures exceed every control beyond the interval of their difference.

Where it is known whether a sentence is true (`--template_words`, or by labels that are read in the true report), the
probabilities that the checkpoint states are held against it, of the sentences that it writes and of those of another
image's report. Calibrate it first: litegpt calibrate-words.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from litegpt.common.arguments import parse
from litegpt.common.files import weights_sha256, write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.datasets_scripts.second_views import second_views
from litegpt.datasets_scripts.template_words import with_template_words
from litegpt.evaluation_scripts.arguments import WordAnsweringArguments, WordEvaluationArguments
from litegpt.evaluation_scripts.evaluate_litegpt import bootstrap_facts, control_images, versions
from litegpt.evaluation_scripts.patients import patients_of
from litegpt.evaluation_scripts.predictions import load_pipeline
from litegpt.evaluation_scripts.questions import label_names
from litegpt.evaluation_scripts.report_models import NEEDS
from litegpt.evaluation_scripts.reports.words import html_report, write_report
from litegpt.evaluation_scripts.row_priors import other_rows
from litegpt.evaluation_scripts.sentence_facts import sentence_truths, truth_of_rows
from litegpt.evaluation_scripts.sentence_scores import (
    ToldSentence,
    borrowed_reports,
    chance,
    sentence_counts,
    sentence_statistic,
    told_sentences,
)
from litegpt.evaluation_scripts.word_controls import SHUFFLES, blind_answers, control_sample, shuffled_answers
from litegpt.evaluation_scripts.word_predictions import Key, answer_words, sentence_beliefs
from litegpt.evaluation_scripts.word_questions import WordQuestion, word_questions
from litegpt.evaluation_scripts.word_scores import Compared, Given, Reading, compared, given_answer, word_statistic
from litegpt.metrics.intervals import Name, patient_numbers
from litegpt.modeling_litegpt.checkpoints import load_processor
from litegpt.modeling_litegpt.provenance import provenance, recorded_config
from litegpt.processing.pipeline_litegpt import UNTRAINED_TASK, ChestXrayFindingsPipeline
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.sentence_truth import probability_of

Lines = dict[Key, dict[str, Any]]
PACKAGES = {"radgraph": "radgraph", "chexbert": "f1chexbert"}  # by what --report_models calls them


@program
def main(args: WordEvaluationArguments) -> None:
    output_dir = Path(args.output_dir)
    with refuse_bad_input():
        for package in (PACKAGES[name] for name in args.report_models):
            if find_spec(package) is None:
                raise ValueError(NEEDS[package] + ".")
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
        prior = other_rows(args.data_dir, args.prior_split, rows, args.cache_dir, args.num_proc)
        rows = with_words(args, rows)
        processor = load_processor(args.model_name_or_path)
        asked = questions_of_tasks(rows, args.tasks, processor, args.max_questions)
        others = second_views(rows) if args.second_view else {}
        source = provenance(args.model_name_or_path, recorded_config(args.model_name_or_path))
    source.warn()
    output_dir.mkdir(parents=True, exist_ok=True)

    @functools.cache
    def pipe() -> ChestXrayFindingsPipeline:
        with refuse_bad_input():
            return load_pipeline(args, rows)

    wanted = [key_of(one) for of_task in asked.values() for one in of_task]
    lines = answer_words(args, wanted, rows, output_dir / "word_predictions.jsonl", pipe, others)
    samples = {task: control_sample(one.image for one in of_task) for task, of_task in asked.items()}
    pictures = control_images(processor)
    blind_lines = control_lines(args, asked, samples, pictures, output_dir / "word_controls.jsonl", pipe)

    reading = Reading(tuple(label_names(rows)["finding"]) if args.template_words else None, tuple(args.report_models))
    patients = patients_of(rows)
    tasks, worded_prior = {}, None if prior is None else with_words(args, prior)
    for task, of_task in asked.items():
        learnt = [] if worded_prior is None else word_questions(worded_prior, task)
        given = [given_answer(lines[key_of(one)]) for one in of_task]
        figures = beside_controls(of_task, given, learnt or of_task, reading, len(rows), patients)
        add_sampled(figures, of_task, given, blind_lines, samples[task], reading, patients)
        tasks[task] = {
            "questions": len(of_task),
            "radiographs": len({one.image for one in of_task}),
            "malformed": sum(one.malformed is not None for one in given),
            "prior": str(prior.split) if learnt else None,
            "control_radiographs": len(samples[task]),
            "figures": as_json(figures),
        }
    doubts = {doubt for line in lines.values() for doubt in line.get("warnings", ())}
    metrics = {
        "tasks": tasks,
        "sentence_truth": sentence_truth(args, rows, asked, lines, output_dir, pipe, patients),
        "template_words": args.template_words,
        "two_views": len(others),
        "untrained": {task: doubt for task in asked if (doubt := UNTRAINED_TASK.format(task=task)) in doubts},
        "data_set": {**data_set_facts(args.data_dir), "split": args.split, "radiographs": len(rows)},
        "weights": weights_sha256(args.model_name_or_path),
        "run": {**source.line(), **versions()},
        "bootstrap": bootstrap_facts(rows),
    }
    names = (source.checkpoint, Path(args.data_dir).resolve().name)
    write_text(output_dir / "word_metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_text(output_dir / "words.md", write_report(metrics, *names))
    page = html_report(metrics, asked, lines, rows, *names, num_cases=args.cases)
    write_text(output_dir / "words.html", page)
    print(f"{output_dir / 'words.md'}: {sum(map(len, asked.values())):,} questions on {len(rows):,} radiographs.")


def with_words(args: WordAnsweringArguments, rows: Dataset) -> Dataset:
    """The rows, with template words where these are asked for.

    Raises:
        ValueError: they have words of their own.
    """
    return with_template_words(rows) if args.template_words else rows


def key_of(one: WordQuestion) -> Key:
    return one.image, one.task, one.about


def questions_of_tasks(
    rows: Dataset, tasks: Sequence[str], processor: LiteGPTProcessor, most: int | None = None
) -> dict[str, list[WordQuestion]]:
    """By task the rows' questions; tasks that no row tells the answer to are left out, and said.

    Raises:
        Refusal: no task is left.
        ValueError: the checkpoint does not know a task, or a question cannot stand in a prompt.
    """
    asked = {task: word_questions(rows, task, most) for task in tasks}
    for task in [task for task, of_task in asked.items() if not of_task]:
        print(f"{task}: no radiograph of this split tells the answer, so it is not asked.")
        del asked[task]
    if not asked:
        hint = "" if "phrase" in rows.column_names else " (rows with boxes alone: --template_words)"
        raise Refusal(f"No radiograph of this split tells the answer to {' or '.join(tasks)}{hint}.")
    for task, about in dict.fromkeys((one.task, one.about) for of_task in asked.values() for one in of_task):
        processor.prompt(task, about)
    return asked


def control_lines(
    args: WordEvaluationArguments,
    asked: Mapping[str, Sequence[WordQuestion]],
    samples: Mapping[str, Sequence[int]],
    pictures: Dataset,
    path: Path,
    pipe: Callable[[], ChestXrayFindingsPipeline],
) -> dict[str, Lines]:
    """By control what the questions about some images are answered when they are asked about no radiograph.

    Args:
        samples: by task the images.
        pictures: of `control_images`; the i-th image of a sample has the i-th picture of noise, over and over.
    """
    names = pictures["image_id"][:]
    shown = {
        "noise": [number for number, name in enumerate(names) if name != "black"],
        "black": [names.index("black")],
    }
    instead: dict[tuple[str, Key], Key] = {}
    for task, sample in samples.items():
        place = {image: number for number, image in enumerate(sample)}
        for key in (key_of(one) for one in asked[task] if one.image in place):
            for control, numbers in shown.items():
                instead[control, key] = (numbers[place[key[0]] % len(numbers)], *key[1:])
    answered = answer_words(args, instead.values(), pictures, path, pipe)
    return {
        control: {key: answered[of] for (name, key), of in instead.items() if name == control} for control in shown
    }


# --- Figures ---------------------------------------------------------------------------------------------------------


def beside_controls(
    asked: Sequence[WordQuestion],
    given: Sequence[Given],
    learnt_from: Sequence[WordQuestion],
    reading: Reading,
    num_images: int,
    patients: np.ndarray | None,
) -> dict[Name, Compared]:
    """The figures of a task beside those of shuffled and of blind answers."""
    rng = np.random.default_rng(0)
    shuffled = [shuffled_answers(asked, given, rng) for _ in range(SHUFFLES)]
    controls = {"shuffled": [answers for answers in shuffled if answers is not None]}
    controls |= blind_answers(asked[0].task, asked, learnt_from)
    statistics = {
        name: [word_statistic(asked, answers, reading) for answers in of_control]
        for name, of_control in controls.items()
        if of_control
    }
    return compared(word_statistic(asked, given, reading), statistics, num_images, patients)


def add_sampled(
    figures: dict[Name, Compared],
    asked: Sequence[WordQuestion],
    given: Sequence[Given],
    blind_lines: Mapping[str, Lines],
    sample: Sequence[int],
    reading: Reading,
    patients: np.ndarray | None,
) -> None:
    """Puts what the sampled controls reach, and how much more the answers do on the same sample, into `figures`."""
    place = {image: number for number, image in enumerate(sample)}
    chosen = [number for number, one in enumerate(asked) if one.image in place]
    if not chosen:
        return
    some = [asked[number]._replace(image=place[asked[number].image]) for number in chosen]
    statistics = {
        control: [word_statistic(some, [given_answer(lines[key_of(asked[number])]) for number in chosen], reading)]
        for control, lines in blind_lines.items()
    }
    # The patients are numbered from 0 on again.
    units = None if patients is None else patient_numbers([str(patients[image]) for image in sample])
    mine = word_statistic(some, [given[number] for number in chosen], reading)
    for name, figure in compared(mine, statistics, len(sample), units).items():
        figures[name].differences.update(figure.differences)


def as_json(figures: Mapping[Name, Compared]) -> dict[str, Any]:
    """{"accuracy_at_iou.0.5": {"value", "interval", "controls": {name: {"control", "more", "interval"}}}}."""
    return {
        ".".join(name): {
            "value": figure.value,
            "interval": figure.interval,
            "controls": {control: difference._asdict() for control, difference in figure.differences.items()},
        }
        for name, figure in figures.items()
    }


# --- Whether sentences are true --------------------------------------------------------------------------------------


def sentence_truth(
    args: WordEvaluationArguments,
    rows: Dataset,
    asked: Mapping[str, Sequence[WordQuestion]],
    lines: Lines,
    output_dir: Path,
    pipe: Callable[[], ChestXrayFindingsPipeline],
    patients: np.ndarray | None,
) -> dict[str, Any] | None:
    """Figures of stated probabilities of sentences; None where no reports are asked for.

    Of "answered" sentences, which the checkpoint wrote, and of "borrowed" ones of another image's true report, each
    beside "another_image": what it believes of the same sentences about a third radiograph.
    """
    task = next((task for task in ("report", "grounded_report") if task in asked), None)
    if task is None:
        return None
    kind = truth_of_rows(args)
    truths, labels = sentence_truths(rows, kind), tuple(label_names(rows)["finding"])
    known = [one for one in asked[task] if truths[one.image] is not None]
    borrowed = borrowed_reports([one.image for one in known], [one.answer for one in known])
    answers = {one.image: lines[key_of(one)] for one in known}
    written = {image: line for image, line in answers.items() if line["malformed"] is None and line[task]}
    shown = [(one.image, one.answer) for one in borrowed] + [(one.third, one.answer) for one in borrowed]
    shown += [(one.third, written[one.image]["answer"]) for one in borrowed if one.image in written]
    log_odds = sentence_beliefs(args, shown, task, rows, output_dir / "sentence_beliefs.jsonl", pipe)
    calibration = load_processor(args.model_name_or_path).sentence_calibration

    def told(image: int, answer: str, shown_image: int) -> list[ToldSentence]:
        """The sentences of an answer about an image, with what is believed of them of the image that was shown."""
        beliefs = [
            None if odds is None else probability_of(odds, calibration) for odds in log_odds[shown_image, answer]
        ]
        return told_sentences(image, task, answer, beliefs, truths[image], kind, labels)

    stated = {image: [entry["probability"] for entry in line[task]] for image, line in written.items()}
    groups = {
        "answered": (
            [
                one
                for image, line in written.items()
                for one in told_sentences(image, task, line["answer"], stated[image], truths[image], kind, labels)
            ],
            [
                one
                for report in borrowed
                if report.image in written
                for one in told(report.image, written[report.image]["answer"], report.third)
            ],
        ),
        "borrowed": (
            [one for report in borrowed for one in told(report.image, report.answer, report.image)],
            [one for report in borrowed for one in told(report.image, report.answer, report.third)],
        ),
    }
    result: dict[str, Any] = {"task": task, "truth": kind, "calibration": calibration}
    for name, (of_own, of_third) in groups.items():
        if not of_own:
            continue
        threshold = calibration["threshold"]
        statistics = {"chance": [chance]}
        if of_third:
            statistics["another_image"] = [sentence_statistic(of_third, threshold)]
        figures = compared(sentence_statistic(of_own, threshold), statistics, len(rows), patients)
        result[name] = {**sentence_counts(of_own), "figures": as_json(figures)}
    return result


if __name__ == "__main__":
    main(*parse([WordEvaluationArguments], None, "evaluate_words.py", __doc__))
