"""Where a model sees findings, held against true boxes: ChestX-ray8's evaluation (arXiv 1705.02315), with controls.

    litegpt localize --model_name_or_path outputs/classifier/checkpoint --data_dir prepared/chestx-ray14 \\
        --output_dir outputs/localize
    litegpt localize --model_name_or_path outputs/demo/checkpoint --method attention --data_dir prepared/vindr-cxr \\
        --output_dir outputs/attention

Of a radiograph classifier: AUROC of its labels; boxes of the labels that it calls present (Acc. and false positives
at T(IoU) and T(IoBB), as the paper's tables); and its maps where the label is told. Of a LiteGPT the maps that explain
its answers, in the same way. Controls: another radiograph's map, the same network with random weights, a map that
falls off from the centre. Radiographs without a true box enter the AUROC alone.

Writes `predictions.jsonl`, a line a radiograph, `metrics.json` with 95 % intervals, and `report.md`, beside the
published figures. The same command resumes where an interrupted run stopped. A radiograph that cannot be read is named
and left out, and the status is 1.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from litegpt.common.arguments import parse
from litegpt.common.files import complete_lines, weights_sha256, write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.image_labels import abnormal, label_matrix, label_names
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.evaluation_scripts.arguments import LocalizationArguments
from litegpt.evaluation_scripts.chestx_ray8_tables import as_markdown as tables_as_markdown
from litegpt.evaluation_scripts.chestx_ray8_tables import collect
from litegpt.evaluation_scripts.controls import SHUFFLES, random_cycle
from litegpt.evaluation_scripts.evaluate_litegpt import bootstrap_facts, versions
from litegpt.evaluation_scripts.map_scores import (
    IOBB_THRESHOLDS,
    IOU_THRESHOLDS,
    MAP,
    BoxRule,
    Regions,
    centre_prior,
    given_class_scores,
    regions_of,
)
from litegpt.evaluation_scripts.map_sources import MapSource, load_source
from litegpt.evaluation_scripts.patients import patients_of
from litegpt.evaluation_scripts.reports.localization import as_markdown
from litegpt.evaluation_scripts.tower_scores.classification import TOWER, label_scores
from litegpt.metrics.boxes import chestx_ray8_scores, detection_scores, match
from litegpt.modeling_litegpt.provenance import short_name
from litegpt.processing.map_boxes import MapBox

DETECTION_THRESHOLDS = ("0.3", "0.5")
CALIBRATION_IMAGES = 64  # that batch norms of random weights are measured on

Line = dict[str, Any]


@program
def main(args: LocalizationArguments) -> int:
    output_dir = Path(args.output_dir)
    with refuse_bad_input():
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
        source = load_source(args.model_name_or_path, args.method, "cuda" if torch.cuda.is_available() else "cpu")
        source.boxes = BoxRule(
            source.boxes.thresholds if args.box_thresholds is None else tuple(args.box_thresholds),
            source.boxes.rule if args.box_rule is None else args.box_rule,
        )
        check_settings(args, source, output_dir)
    truths = true_boxes(rows, source.labels)
    boxed = np.flatnonzero([bool(boxes) for boxes in truths])
    if not len(boxed) and not source.names_labels:
        raise Refusal(f"{args.data_dir}, {args.split}: no radiograph has a box of a label that the model has.")
    cycles = cycles_of(len(boxed), SHUFFLES if source.names_labels else 1)
    wanted = wanted_labels(truths, boxed, cycles, all_of_them=source.names_labels)
    looked_at = np.arange(len(rows)) if source.names_labels else boxed
    if source.names_labels:
        for number, labels in enumerate(positive_labels(rows, source.labels)):
            wanted[number] = sorted({*wanted.get(number, []), *labels})
    lines = predictions(source, rows, looked_at, wanted, args.batch_size, output_dir / "predictions.jsonl")
    blind = None
    if args.random_weights and len(boxed):
        examples = [image for image in map(picture, iterated(rows, boxed[:CALIBRATION_IMAGES])) if image is not None]
        own = {number: sorted({box["label"] for box in truths[number]}) for number in boxed.tolist()}
        control = source.with_random_weights(seed=0, examples=examples)
        control.boxes = source.boxes
        blind = predictions(control, rows, boxed, own, args.batch_size, output_dir / "random_weights.jsonl")

    unread = {line["image_id"]: line["malformed"] for line in lines.values() if line["malformed"] is not None}
    read = [number for number in looked_at.tolist() if lines[number]["malformed"] is None]
    metrics: dict[str, Any] = {
        "model_name_or_path": short_name(args.model_name_or_path),
        "method": source.method,
        "boxes": source.boxes._asdict(),
        "split": args.split,
        "data_set": data_set_facts(args.data_dir) | {"radiographs": len(rows), "with_boxes": len(boxed)},
        "unread": unread,
    }
    if source.names_labels:
        metrics["present"] = {label: source.present.get(label, 0.5) for label in source.labels}
        metrics["classification"] = classification(lines, read, rows, source.labels, args.min_positives)
        if len(boxed):
            metrics |= gated_scores(lines, truths, rows, source.labels, sorted({*boxed.tolist()} & {*read}))
    if len(boxed):
        metrics["given_class"] = told_scores(lines, blind, truths, rows, boxed, cycles, source)
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
        "data": str(Path(args.data_dir).resolve()),
        "split": args.split,
        "method": source.method,
        "boxes": list(source.boxes),
    }
    path, lines = output_dir / "predictions.settings.json", output_dir / "predictions.jsonl"
    settings = json.loads(json.dumps(settings))
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings and complete_lines(lines):
        raise Refusal(
            f"{lines} holds predictions of another checkpoint, split or data set, or by another method; remove it or "
            "choose another output_dir."
        )
    write_text(path, json.dumps(settings, indent=2) + "\n")


# --- What is asked ---------------------------------------------------------------------------------------------------


def true_boxes(rows: Dataset, labels: Sequence[str]) -> list[list[dict[str, Any]]]:
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


def cycles_of(count: int, number: int) -> list[np.ndarray]:
    """Of each boxed radiograph another one whose map it is given, in several ways; one radiograph has no other."""
    rng = np.random.default_rng(0)
    return [random_cycle(count, rng) for _ in range(number)] if count > 1 else []


def wanted_labels(
    truths: Sequence[Sequence[dict[str, Any]]], boxed: np.ndarray, cycles: Sequence[np.ndarray], all_of_them: bool
) -> dict[int, list[str]]:
    """Of each boxed radiograph the labels whose maps are needed: its own, and those of others that get its maps."""
    own = [{box["label"] for box in truths[number]} for number in boxed]
    if all_of_them:  # they cost nothing
        every = sorted(set().union(*own))
        return {int(number): every for number in boxed}
    wanted = [set(labels) for labels in own]
    for cycle in cycles:
        for place, other in enumerate(cycle):
            wanted[other] |= own[place]
    return {int(number): sorted(labels) for number, labels in zip(boxed, wanted, strict=True)}


def positive_labels(rows: Dataset, labels: Sequence[str]) -> list[list[str]]:
    """Of each row those of some labels that it has: boxes of their maps may stand for true ones (`litegpt train`)."""
    names = [label for label in labels if label in label_names(rows.features)]
    return [[names[place] for place in np.flatnonzero(row == 1)] for row in label_matrix(rows, names)]


# --- Predictions -----------------------------------------------------------------------------------------------------


def predictions(
    source: MapSource,
    rows: Dataset,
    numbers: Sequence[int],
    wanted: dict[int, list[str]],
    batch_size: int,
    path: Path,
) -> dict[int, Line]:
    """The lines of some rows, by their numbers: those that `path` has, and the missing ones, which are appended."""
    image_ids = rows["image_id"][:]
    done = {line["image_id"]: line for line in complete_lines(path)}
    pending = [number for number in map(int, numbers) if image_ids[number] not in done]
    with path.open("a", encoding="utf-8") as file, tqdm(total=len(pending), desc=path.stem, mininterval=1) as bar:
        for start in range(0, len(pending), batch_size):
            batch = pending[start : start + batch_size]
            for line in looked_at(source, rows, batch, [wanted.get(number, []) for number in batch]):
                done[line["image_id"]] = line
                file.write(json.dumps(line) + "\n")
            file.flush()
            bar.update(len(batch))
    return {int(number): done[image_ids[number]] for number in numbers}


def looked_at(
    source: MapSource, rows: Dataset, numbers: Sequence[int], wanted: Sequence[Sequence[str]]
) -> Iterator[Line]:
    """The lines of one batch."""
    found = list(iterated(rows, numbers))
    pictures = [picture(one) for one in found]
    usable = [place for place, image in enumerate(pictures) if image is not None]
    seen = source.look([pictures[place] for place in usable], [wanted[place] for place in usable]) if usable else []
    by_place = dict(zip(usable, seen, strict=True))
    ids = rows.select_columns("image_id").select(numbers)["image_id"][:]
    for place, image_id in enumerate(ids):
        line: Line = {"image_id": image_id, "task": "localize", "malformed": None}
        if place not in by_place:
            yield line | {"malformed": str(found[place])}
            continue
        one = by_place[place]
        regions = {label: regions_of(grid, source.boxes) for label, grid in one.grids.items()}
        if one.probabilities is not None:
            scores = dict(zip(source.labels, map(float, one.probabilities), strict=True))
            line["diagnoses"] = [{"label": label, "score": score} for label, score in scores.items()]
            line["findings"] = [
                {"label": label, "box": list(box.box), "score": scores[label] * box.strength}
                for label in source.labels
                if scores[label] >= source.present.get(label, 0.5)
                for box in regions[label].boxes
            ]
        yield line | {
            "regions": {
                label: {"peak": of_label.peak, "boxes": [[*box.box, box.strength] for box in of_label.boxes]}
                for label, of_label in regions.items()
            }
        }


def iterated(rows: Dataset, numbers: Sequence[int]) -> Iterator[Any]:
    """The pictures of some rows, or why one cannot be read."""
    for number in numbers:
        try:
            image = rows.select_columns("image")[int(number)]["image"]
            yield "the row has no picture." if image is None else image
        except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's for broken PNG chunks
            yield f"the picture can't be decoded ({error})."


def picture(found: Any) -> Any:
    return None if isinstance(found, str) else found


def read_regions(line: Line, labels: Sequence[str]) -> dict[str, Regions]:
    """The regions of some labels of a line; of a radiograph that could not be read there are none."""
    nothing = {"peak": None, "boxes": []}
    found = {label: line.get("regions", {}).get(label, nothing) for label in labels}
    return {
        label: Regions(
            None if one["peak"] is None else tuple(one["peak"]),
            tuple(MapBox(tuple(box[:4]), box[4]) for box in one["boxes"]),
        )
        for label, one in found.items()
    }


# --- Scores ----------------------------------------------------------------------------------------------------------


def classification(
    lines: dict[int, Line], read: Sequence[int], rows: Dataset, labels: Sequence[str], min_positives: int
) -> dict[str, Any]:
    """AUROC of the labels beside shuffled answers, as `label_scores` gives them; None where no label can be scored."""
    names = [label for label in labels if label in label_names(rows.features)]
    of_names = [labels.index(name) for name in names]
    scores = np.array([[lines[n]["diagnoses"][place]["score"] for place in of_names] for n in read])
    rows = rows.select(read)
    try:
        found = label_scores(
            scores, label_matrix(rows, names), abnormal(rows), names, patients_of(rows), min_positives
        )
    except ValueError as error:
        return {"labels": [], "left_out": {"all": str(error)}, "figures": {}, "intervals": {}}
    for kind in ("figures", "intervals"):
        found[kind] = {name.replace(TOWER, "classifier"): value for name, value in found[kind].items()}
    return found


def gated_scores(
    lines: dict[int, Line],
    truths: Sequence[Sequence[dict[str, Any]]],
    rows: Dataset,
    labels: Sequence[str],
    boxed: Sequence[int],
) -> dict[str, Any]:
    """The paper's localisation and mean average precision, of the boxes of labels that are called present.

    `ambiguous_false_positives`: those an image whose label the radiograph has, though no box of it: what is marked
    there may be right. They are among the false positives at every threshold.
    """
    found = [lines[number]["findings"] for number in boxed]
    true = [truths[number] for number in boxed]
    scores = chestx_ray8_scores(found, true, IOU_THRESHOLDS, IOBB_THRESHOLDS)
    known = [label for label in labels if label in label_names(rows.features)]
    has = label_matrix(rows.select(boxed), known) == 1
    ambiguous = dict.fromkeys(known, 0)
    for image, findings in enumerate(found):
        unboxed = {label for place, label in enumerate(known) if has[image, place]}
        unboxed -= {box["label"] for box in true[image]}
        for finding in findings:
            if finding["label"] in unboxed:
                ambiguous[finding["label"]] += 1
    for label, values in scores["per_class"].items():
        values["ambiguous_false_positives"] = ambiguous.get(label, 0) / len(boxed)
    matches = {threshold: match(found, true, float(threshold)) for threshold in DETECTION_THRESHOLDS}
    return {"localization": scores, "detection": detection_scores(matches, len(boxed))}


def told_scores(
    lines: dict[int, Line],
    blind: dict[int, Line] | None,
    truths: Sequence[Sequence[dict[str, Any]]],
    rows: Dataset,
    boxed: np.ndarray,
    cycles: Sequence[np.ndarray],
    source: MapSource,
) -> dict[str, Any]:
    """The scores of maps whose label is told, beside those of the controls."""
    true = [truths[number] for number in boxed]
    own = [sorted({box["label"] for box in boxes}) for boxes in true]

    def of(by_number: dict[int, Line], order: Sequence[int]) -> list[dict[str, Regions]]:
        return [read_regions(by_number[int(boxed[other])], labels) for other, labels in zip(order, own, strict=True)]

    same = range(len(boxed))
    regions = {MAP: [of(lines, same)]}
    if cycles:
        regions["another_image"] = [of(lines, cycle) for cycle in cycles]
    if blind is not None:
        regions["random_weights"] = [of(blind, same)]
    centre = centre_prior(source.boxes)
    regions["centre"] = [[dict.fromkeys(labels, centre) for labels in own]]
    return given_class_scores(true, regions, patients_of(rows.select(boxed)))


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
