"""Where a model sees findings, held against true boxes: ChestX-ray8's evaluation (arXiv 1705.02315), with controls.

    litegpt localize --model_name_or_path outputs/classifier/checkpoint --data_dir prepared/chestx-ray14 \\
        --output_dir outputs/localize
    litegpt localize --model_name_or_path outputs/demo/checkpoint --method attention --data_dir prepared/vindr-cxr \\
        --output_dir outputs/attention

Of a radiograph classifier: AUROC of its labels; boxes of the labels that it calls present (Acc. and false positives
at T(IoU) and T(IoBB), as the paper's tables); and its maps where the label is told. Of a LiteGPT the maps that explain
its answers, in the same way. Controls: another radiograph's map, the same network with random weights, a map that
falls off from the centre, and the location prior: the best box and the hottest place of the label among the boxes of
`--prior_split`. Radiographs without a true box enter the AUROC alone.

Writes `predictions.jsonl`, a line a radiograph, `metrics.json` with 95 % intervals, and `report.md`, beside the
published figures. The same command resumes where an interrupted run stopped. A radiograph that cannot be read is named
and left out, and the status is 1.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from litegpt.common.addresses import resolved
from litegpt.common.arguments import parse
from litegpt.common.files import weights_sha256, write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.image_labels import abnormal, label_matrix, label_names
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.evaluation_scripts.arguments import LocalizationArguments
from litegpt.evaluation_scripts.chestx_ray8_tables import as_markdown as tables_as_markdown
from litegpt.evaluation_scripts.chestx_ray8_tables import collect
from litegpt.evaluation_scripts.controls import SHUFFLES, random_cycle
from litegpt.evaluation_scripts.evaluate_litegpt import bootstrap_facts, versions
from litegpt.evaluation_scripts.map_predictions import Prediction, map_predictions, read_pictures
from litegpt.evaluation_scripts.map_scores import (
    MAP,
    BoxRule,
    centre_prior,
    given_class_scores,
    prior_regions,
)
from litegpt.evaluation_scripts.map_sources import MapSource, load_source
from litegpt.evaluation_scripts.patients import patients_of
from litegpt.evaluation_scripts.predictions import refuse_other_settings
from litegpt.evaluation_scripts.reports.localization import as_markdown
from litegpt.evaluation_scripts.row_priors import other_rows, row_priors
from litegpt.evaluation_scripts.tower_scores.classification import TOWER, label_scores
from litegpt.metrics.boxes import CHESTX_RAY8_IOBB, CHESTX_RAY8_IOU, chestx_ray8_scores, detection_scores, match
from litegpt.modeling_litegpt.provenance import short_name
from litegpt.processing.map_boxes import Regions

DETECTION_THRESHOLDS = ("0.3", "0.5")
CALIBRATION_IMAGES = 64  # that batch norms of random weights are measured on
NOTHING = Regions(None, ())

Truths = list[list[dict[str, Any]]]  # of each row the true {"label", "box"} of labels that the model has
Predictions = Mapping[int, Prediction]  # by the number of the row


@program
def main(args: LocalizationArguments) -> int:
    output_dir = Path(args.output_dir)
    with refuse_bad_input():
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
        others = other_rows(args.data_dir, args.prior_split, rows, args.cache_dir, args.num_proc)
        source = load_source(args.model_name_or_path, args.method, "cuda" if torch.cuda.is_available() else "cpu")
        thresholds, rule = source.boxes
        source.boxes = BoxRule(tuple(args.box_thresholds or thresholds), args.box_rule or rule)
        check_settings(args, source, output_dir)
    truths = true_boxes(rows, source.labels)
    boxed = [number for number, boxes in enumerate(truths) if boxes]
    if not boxed and not source.cut_offs:
        raise Refusal(f"{args.data_dir}, {args.split}: no radiograph has a box of a label that the model has.")
    cycles = cycles_of(len(boxed), SHUFFLES if source.cut_offs else 1)
    wanted = wanted_labels(rows, source, truths, boxed, cycles)
    image_ids = rows["image_id"][:]
    found = map_predictions(source, rows, wanted, boxed, output_dir / "predictions.jsonl", args.batch_size)
    unread = {image_ids[number]: one.malformed for number, one in found.items() if one.malformed is not None}
    if len(unread) == len(found):
        image_id, reason = next(iter(unread.items()))
        raise Refusal(f"{args.data_dir}, {args.split}: no radiograph can be read; {image_id}: {reason}")
    regions = regions_of_runs(found, truths, boxed, cycles, source)
    learnt = row_priors(rows, others)
    regions["prior"] = [[prior_regions(learnt.priors[number], own_labels(truths, number)) for number in boxed]]
    if args.random_weights and boxed:
        blind = blind_predictions(source, rows, truths, boxed, output_dir / "random_weights.jsonl", args.batch_size)
        regions["random_weights"] = [of_own_labels(blind, truths, boxed, boxed)]

    metrics: dict[str, Any] = {
        "model_name_or_path": short_name(args.model_name_or_path),
        "method": source.method,
        "boxes": source.boxes._asdict(),
        "split": args.split,
        "data_set": data_set_facts(args.data_dir) | {"radiographs": len(rows), "with_boxes": len(boxed)},
        "unread": unread,
    }
    if source.cut_offs:
        metrics["present"] = source.cut_offs
        metrics["classification"] = classification(found, rows, source.labels, args.min_positives)
        if boxed:
            metrics |= gated_scores(found, truths, rows, boxed)
    if boxed:
        true = [truths[number] for number in boxed]
        metrics["given_class"] = given_class_scores(true, regions, patients_of(rows.select(boxed)))
        metrics["prior"] = learnt.source
    metrics |= {
        "bootstrap": bootstrap_facts(rows),
        "weights": weights_sha256(args.model_name_or_path),
        "run": versions(),
    }
    write_text(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    published = tables_as_markdown(collect({metrics["model_name_or_path"]: metrics}))
    write_text(output_dir / "report.md", f"{as_markdown(metrics)}\n{published}")
    print(summary(metrics, output_dir))
    for image_id, reason in unread.items():
        print(f"{image_id}: {reason}")
    return 1 if unread else 0


def check_settings(args: LocalizationArguments, source: MapSource, output_dir: Path) -> None:
    """Refuses a folder that holds another run's predictions.

    Raises:
        Refusal: it does.
    """
    settings = {
        "weights": weights_sha256(args.model_name_or_path),
        "data": resolved(args.data_dir),
        "split": args.split,
        "method": source.method,
        "boxes": [list(source.boxes.thresholds), source.boxes.rule],
    }
    other = "of another checkpoint, split or data set, or by another method"
    refuse_other_settings(settings, output_dir / "predictions.jsonl", other)


# --- What is asked ---------------------------------------------------------------------------------------------------


def true_boxes(rows: Dataset, labels: Sequence[str]) -> Truths:
    """Of each row the findings of some labels, as {"label", "box"}."""
    names, known = rows.features["findings"].feature["label"].names, set(labels)
    return [
        [
            {"label": names[finding["label"]], "box": finding["box"]}
            for finding in findings
            if names[finding["label"]] in known
        ]
        for findings in rows["findings"]
    ]


def own_labels(truths: Truths, number: int) -> list[str]:
    return sorted({box["label"] for box in truths[number]})


def cycles_of(count: int, number: int) -> list[np.ndarray]:
    """Of each boxed radiograph another one whose map it is given, in several ways; one radiograph has no other."""
    rng = np.random.default_rng(0)
    return [random_cycle(count, rng) for _ in range(number)] if count > 1 else []


def wanted_labels(
    rows: Dataset, source: MapSource, truths: Truths, boxed: Sequence[int], cycles: Sequence[np.ndarray]
) -> dict[int, list[str]]:
    """The rows to be looked at, and of each the labels whose maps are needed.

    Of a boxed radiograph its own labels and those of radiographs that are given its maps. A classifier looks at all
    rows, as it names labels too, and of each the labels that it has: boxes of their maps may stand for true ones in
    training (`litegpt train --pseudo_boxes`).
    """
    wanted = {number: set(own_labels(truths, number)) for number in boxed}
    for cycle in cycles:
        for number, other in zip(boxed, cycle, strict=True):
            wanted[boxed[other]].update(own_labels(truths, number))
    if source.cut_offs:
        names = [label for label in source.labels if label in label_names(rows.features)]
        for number, has in enumerate(label_matrix(rows, names) == 1):
            wanted.setdefault(number, set()).update(names[place] for place in np.flatnonzero(has))
    return {number: sorted(wanted[number]) for number in sorted(wanted)}


def blind_predictions(
    source: MapSource, rows: Dataset, truths: Truths, boxed: Sequence[int], path: Path, batch_size: int
) -> Predictions:
    """Those of the same network with random weights, of the boxed rows' own labels."""
    examples, _ = read_pictures(rows.select_columns("image"), boxed[:CALIBRATION_IMAGES])
    control = source.with_random_weights(seed=0, examples=list(examples.values()))
    wanted = {number: own_labels(truths, number) for number in boxed}
    return map_predictions(control, rows, wanted, boxed, path, batch_size)


# --- Scores ----------------------------------------------------------------------------------------------------------


def of_own_labels(
    found: Predictions, truths: Truths, boxed: Sequence[int], shown: Sequence[int]
) -> list[dict[str, Regions]]:
    """Of each boxed row the regions of its own labels, as the maps of `shown` have them."""
    return [
        {label: found[other].regions.get(label, NOTHING) for label in own_labels(truths, number)}
        for number, other in zip(boxed, shown, strict=True)
    ]


def regions_of_runs(
    found: Predictions, truths: Truths, boxed: Sequence[int], cycles: Sequence[np.ndarray], source: MapSource
) -> dict[str, list[list[dict[str, Regions]]]]:
    """The regions of the maps, of other radiographs' maps, and of one map for all."""
    others = [[boxed[other] for other in cycle] for cycle in cycles]
    centre = centre_prior(source.boxes)
    regions = {MAP: [of_own_labels(found, truths, boxed, boxed)]}
    if others:
        regions["another_image"] = [of_own_labels(found, truths, boxed, shown) for shown in others]
    return regions | {"centre": [[dict.fromkeys(own_labels(truths, number), centre) for number in boxed]]}


def classification(found: Predictions, rows: Dataset, labels: Sequence[str], min_positives: int) -> dict[str, Any]:
    """AUROC of the labels beside shuffled answers, as `label_scores` gives them, of the radiographs that were read."""
    names = [label for label in labels if label in label_names(rows.features)]
    read = [number for number, one in found.items() if one.malformed is None]
    scores = np.stack([found[number].scores for number in read])[:, [labels.index(name) for name in names]]
    rows = rows.select(read)
    try:
        scored = label_scores(
            scores, label_matrix(rows, names), abnormal(rows), names, patients_of(rows), min_positives
        )
    except ValueError as error:
        return {"labels": [], "left_out": {"all": str(error)}, "figures": {}, "intervals": {}}
    for kind in ("figures", "intervals"):
        scored[kind] = {name.replace(TOWER, "classifier"): value for name, value in scored[kind].items()}
    return scored


def gated_scores(found: Predictions, truths: Truths, rows: Dataset, boxed: Sequence[int]) -> dict[str, Any]:
    """The paper's localisation and mean average precision, of the boxes of labels that are called present.

    `ambiguous_false_positives`: those an image whose label the radiograph has, though no box of it: what is marked
    there may be right. They are among the false positives at every threshold.
    """
    boxed = [number for number in boxed if found[number].malformed is None]
    findings, true = [found[number].findings for number in boxed], [truths[number] for number in boxed]
    scores = chestx_ray8_scores(findings, true, CHESTX_RAY8_IOU, CHESTX_RAY8_IOBB)
    names = label_names(rows.features)
    has = label_matrix(rows.select(boxed), names) == 1
    ambiguous = dict.fromkeys(names, 0)
    for image, of_image in enumerate(findings):
        unboxed = {names[place] for place in np.flatnonzero(has[image])} - {box["label"] for box in true[image]}
        for finding in of_image:
            if finding["label"] in unboxed:
                ambiguous[finding["label"]] += 1
    for label, values in scores["per_class"].items():
        values["ambiguous_false_positives"] = ambiguous.get(label, 0) / len(boxed)
    matches = {threshold: match(findings, true, float(threshold)) for threshold in DETECTION_THRESHOLDS}
    return {"localization": scores, "detection": detection_scores(matches, len(boxed))}


def summary(metrics: dict[str, Any], output_dir: Path) -> str:
    """A few lines for the terminal."""
    numbers = metrics["data_set"]
    said = [
        f"{output_dir / 'report.md'}: {numbers['radiographs']:,} radiographs, {numbers['with_boxes']:,} with boxes"
    ]
    area = metrics.get("classification", {}).get("figures", {}).get("classifier", {}).get("all", {}).get("macro")
    if area is not None:
        said.append(f"AUROC {area:.3f}, the mean over the labels")
    if "given_class" not in metrics:
        return "\n".join(said)
    figures = metrics["given_class"]["figures"]
    said.append(
        f"{'the label told: the mean over the labels of':44}{'IoU > .3':>10}{'IoBB > .25':>12}{'pointing':>10}"
    )
    for who, values in figures.items():
        if not who.startswith(f"{MAP}_less"):
            three = (values["accuracy_at_iou"]["0.3"], values["accuracy_at_iobb"]["0.25"], values["pointing_game"])
            said.append(f"  {who.replace('_', ' '):42}{three[0]:10.3f}{three[1]:12.3f}{three[2]:10.3f}")
    return "\n".join(said)


if __name__ == "__main__":
    main(*parse([LocalizationArguments], None, "localize.py", __doc__))
