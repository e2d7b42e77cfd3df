"""How long 3,000 answers to each task take to be scored: metrics, controls, intervals, groups and texts.

    python benchmarks/scoring.py --output outputs/bench.json

Truths and answers are drawn, in the numbers of VinDr-CXR: two thirds of the radiographs without a finding, the others
with one to five boxes, of which the answers find most, miss some and invent some. It is what `evaluate_litegpt.py`
does once all is answered.
"""

import argparse
import random
import time
from typing import Any

import litegpt.metrics.text_overlap.text_overlap  # noqa: F401 (what it imports is not what is measured)
from litegpt.benchmarks.results import parsed, record
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.evaluation_scripts.scoring import Calibration, score_predictions
from litegpt.processing.answers import NO_FINDING, Finding, diagnoses_to_text, findings_to_text

LABELS = {"finding": list(FINDING_LABELS), "diagnosis": list(DIAGNOSIS_LABELS)}
TASKS = ["identify", "vqa"]
AGAINST = "20 s asked for, on 2 cores"


def main(output: str, num_images: int) -> None:
    rows, predictions, controls = drawn_answers(num_images)
    thresholds = dict.fromkeys(FINDING_LABELS, 0.5)
    start = time.perf_counter()
    metrics = score_predictions(
        predictions, rows, TASKS, LABELS, controls, Calibration({"finding": 1.5, "diagnosis": 1.2}, thresholds)
    )
    seconds = time.perf_counter() - start
    print(f"{num_images} radiographs: mAP@0.4 {metrics['map']['0.4']:.3f} {metrics['intervals']['map']['0.4']}")
    record(output, {f"scoring/seconds_{num_images}": {"value": seconds, "unit": "s", "against": AGAINST}})


def drawn_answers(
    num_images: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Rows without images, the answers to them in the order of a predictions file, and those to the controls."""
    rng = random.Random(0)
    rows, predictions = [], []
    for number in range(num_images):
        image_id = f"{number:032x}"
        true = [drawn_finding(rng) for _ in range(rng.randint(1, 5))] if rng.random() < 1 / 3 else []
        diagnoses = sorted(rng.sample(range(len(DIAGNOSIS_LABELS) - 1), rng.choice((1, 1, 2)))) if true else []
        rows.append(
            {
                "image_id": image_id,
                "findings": [
                    {"label": FINDING_LABELS.index(finding.label), "box": list(finding.box), "readers": 1}
                    for finding in true
                ],
                "diagnoses": diagnoses or [DIAGNOSIS_LABELS.index(NO_FINDING)],
                "view": rng.choice(("PA", "AP")),
                "sex": rng.choice("FM"),
                "age": rng.randint(1, 95),
            }
        )
        named = [shifted(finding, rng) for finding in true if rng.random() < 0.6]
        named += [drawn_finding(rng) for _ in range(2) if rng.random() < 0.1]
        stated = [DIAGNOSIS_LABELS[index] for index in rows[-1]["diagnoses"]]
        if rng.random() < 0.2:
            stated = [rng.choice(DIAGNOSIS_LABELS)]
        predictions += [finding_line(image_id, named, rng), diagnosis_line(image_id, stated, rng)]
    controls = {
        name: [
            line
            for number in range(count)
            for line in (
                finding_line(f"{name}-{number}", [drawn_finding(rng)], rng),
                diagnosis_line(f"{name}-{number}", [NO_FINDING], rng),
            )
        ]
        for name, count in (("noise", 8), ("black", 1))
    }
    return rows, predictions, controls


def drawn_finding(rng: random.Random) -> Finding:
    x, y = rng.randint(0, 70), rng.randint(0, 70)
    return Finding(
        rng.choice(FINDING_LABELS), (x / 100, y / 100, (x + rng.randint(5, 30)) / 100, (y + rng.randint(5, 30)) / 100)
    )


def shifted(finding: Finding, rng: random.Random) -> Finding:
    """A box near that of `finding`, of its label or now and then of another."""
    x1, y1, x2, y2 = (round(100 * value) for value in finding.box)
    dx, dy = rng.randint(-min(3, x1), 0), rng.randint(-min(3, y1), 0)
    label = finding.label if rng.random() < 0.8 else rng.choice(FINDING_LABELS)
    return Finding(label, ((x1 + dx) / 100, (y1 + dy) / 100, (x2 + dx) / 100, (y2 + dy) / 100))


def finding_line(image_id: str, findings: list[Finding], rng: random.Random) -> dict[str, Any]:
    """As a line of the predictions file."""
    return {
        "image_id": image_id,
        "task": "identify",
        "answer": findings_to_text(findings),
        "findings": [{"label": item.label, "box": list(item.box), "score": rng.random()} for item in findings],
        "probabilities": {NO_FINDING: 0.3 * rng.random() if findings else 1 - 0.3 * rng.random()},
        "malformed": None,
    }


def diagnosis_line(image_id: str, labels: list[str], rng: random.Random) -> dict[str, Any]:
    """As a line of the predictions file."""
    probabilities = {name: rng.random() * (1 if name in labels else 0.5) for name in DIAGNOSIS_LABELS}
    return {
        "image_id": image_id,
        "task": "vqa",
        "answer": diagnoses_to_text(labels),
        "diagnoses": [{"label": name, "score": probabilities[name]} for name in labels],
        "probabilities": probabilities,
        "malformed": None,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_images", type=int, default=3000)
    main(**parsed(parser, "seconds that the scoring of 3,000 radiographs takes, against 20 s asked for", seconds=15))
