"""Whether what was found tells more of the diagnoses: their probabilities with the findings, against those without.

    make demo
    python benchmarks/diagnoses_from_findings.py --checkpoints outputs/demo/checkpoint \\
        --data_dir outputs/demo/phantoms --test_dir outputs/fresh

In: checkpoints, radiographs that nobody trained on to fit weights on (`--fit_split`), and a test split. Out: for each
checkpoint the AUROC of each diagnosis on the test split, with 95 % intervals of the difference to "image". Ways:

    image      the exact probabilities after [vqa], as the pipeline gives them
    told       the same, after a turn in which the model is asked [identify] and answers what it answered
    shuffled   told another radiograph's findings
    findings   a logistic regression on the best score of each finding, named or candidate, alone
    both       the same with the logit of "image"

Regressions are fitted on `--fit_split` (L2, its strength by cross-validation there).
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.special import logit
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler

from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.figures import row_patients
from litegpt.evaluation_scripts.predictions import answer_lines, doubts_unsaid
from litegpt.evaluation_scripts.questions import label_names, question, true_diagnoses
from litegpt.evaluation_scripts.ranking import figures_and_intervals, ranking_figures
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

BATCH = 16
WAYS = ("told", "shuffled", "findings", "both")


def main(checkpoints: list[str], data_dir: str, fit_split: str, test_dir: str, cache_dir: str | None) -> None:
    fit, test = load_rows(data_dir, fit_split, cache_dir, 1), load_rows(test_dir, "test", cache_dir, 1)
    for checkpoint in checkpoints:
        model, processor = load_checkpoint(checkpoint)
        pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device="cpu")
        parts = [Answered(pipe, rows) for rows in (fit, test)]
        names = label_names(test)["diagnosis"]
        order = random_cycle(len(test), np.random.default_rng(0))
        answers = parts[1].answers
        scores = {"image": parts[1].probabilities}
        scores["told"] = told(pipe, test, answers)
        scores["shuffled"] = told(pipe, test, [answers[other] for other in order])
        nothing = np.zeros_like(scores["image"])
        scores["findings"] = regressed(*(part.features[:, : -len(names)] for part in parts), parts[0].truths, nothing)
        scores["both"] = regressed(*(part.features for part in parts), parts[0].truths, scores["image"])
        print(table(checkpoint, scores, parts[1], names))


class Answered:
    """What the pipeline says of rows.

    Attributes:
        answers: to [identify].
        probabilities: (rows, diagnoses), after [vqa].
        features: (rows, findings + diagnoses), the best score of each finding and the logit of each probability.
        truths: (rows, diagnoses) bool.
    """

    def __init__(self, pipe: ChestXrayFindingsPipeline, rows: Dataset):
        names = label_names(rows)
        with doubts_unsaid():
            found = list(answer_lines(pipe, rows, "identify", batch_size=BATCH, candidates=True))
            said = list(answer_lines(pipe, rows, "vqa", batch_size=BATCH))
        self.answers = [line["answer"] for line in found]
        self.probabilities = np.array([[line["probabilities"][name] for name in names["diagnosis"]] for line in said])
        best = np.zeros((len(rows), len(names["finding"])))
        for row, line in enumerate(found):
            for box in [*line["findings"], *line["candidates"]]:
                column = names["finding"].index(box["label"])
                best[row, column] = max(best[row, column], box["score"])
        self.features = np.hstack([best, logit(self.probabilities.clip(1e-6, 1 - 1e-6))])
        asked = question("vqa", list(rows.remove_columns("image")), names)
        if len(asked.images) < len(rows):
            raise ValueError("A radiograph does not tell its diagnoses.")
        self.truths, self.rows = true_diagnoses(asked.rows, names["diagnosis"]), asked.rows


@torch.no_grad()
def told(pipe: ChestXrayFindingsPipeline, rows: Dataset, answers: list[str]) -> np.ndarray:
    """(rows, diagnoses) the exact probabilities after a turn that states findings."""
    processor, found = pipe.processor, []
    for start in range(0, len(rows), BATCH):
        numbers = range(start, min(len(rows), start + BATCH))
        chats = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": asked(processor, "identify")}],
                },
                {"role": "assistant", "content": answers[number]},
                {"role": "user", "content": asked(processor, "vqa")},
            ]
            for number in numbers
        ]
        with doubts_unsaid():
            inputs = processor(
                images=[rows[number]["image"] for number in numbers],
                text=[processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats],
                add_special_tokens=False,
                padding=True,
                return_tensors="pt",
            )
        output = pipe.model.generate(
            **inputs,
            max_new_tokens=64,
            do_sample=False,
            return_dict_in_generate=True,
            custom_generate=processor.constrained_greedy(),
        )
        found += [[of_row[name] for name in processor.diagnosis_labels] for of_row in output.label_probabilities]
    return np.array(found)


def asked(processor: Any, task: str) -> str:
    return f"[{task}] {processor.instructions[task]}"


def regressed(fit: np.ndarray, test: np.ndarray, truths: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """(test rows, diagnoses); one with fewer than 5 radiographs to fit on gets the scores `otherwise`."""
    scaler = StandardScaler().fit(fit)
    scores = otherwise.copy()
    for column in np.flatnonzero(truths.sum(0) >= 5):
        model = LogisticRegressionCV(Cs=np.logspace(-4, 1, 6), cv=5, scoring="neg_log_loss", max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model.fit(scaler.transform(fit), truths[:, column])
        scores[:, column] = model.predict_proba(scaler.transform(test))[:, 1]
    return scores


def table(checkpoint: str, scores: dict[str, np.ndarray], answered: Answered, names: list[str]) -> str:
    """Markdown: AUROC of each way and diagnosis, and differences to "image" with their intervals."""
    truths = answered.truths.astype(float)
    statistic = ranking_figures(
        scores, truths, np.ones(len(truths), dtype=bool), names, [(way, "image") for way in WAYS]
    )
    points, intervals = figures_and_intervals(statistic, len(truths), row_patients(answered.rows))
    lines = [f"{Path(checkpoint)}:", "", f"| AUROC | radiographs | image | {' | '.join(WAYS)} |"]
    lines.append(f"|---|---|---|{'---|' * len(WAYS)}")
    for number, name in [(None, "mean"), *enumerate(names)]:
        key = ("macro",) if number is None else ("per_label", name)
        count = len(truths) if number is None else int(truths[:, number].sum())
        cells = [f"{points[('image', 'all', *key)]:.3f}"]
        for way in WAYS:
            difference, interval = (of[(f"{way}_less_image", "all", *key)] for of in (points, intervals))
            ends = ", ".join(f"{end:+.3f}" for end in interval)
            cells.append(f"{points[(way, 'all', *key)]:.3f} ({difference:+.3f} [{ends}])")
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", nargs="+", default=["outputs/demo/checkpoint"])
    parser.add_argument("--data_dir", default="outputs/demo/phantoms")
    parser.add_argument("--fit_split", default="train[-300:]")
    parser.add_argument("--test_dir", default="outputs/demo/phantoms")
    parser.add_argument("--cache_dir")
    main(**vars(parser.parse_args()))
