"""The shared yardstick on real boxes: folds by patient of a hundred-odd boxed radiographs, and scores with controls.

    folds = box_folds("path/to/data/nih_320", cache_dir="cache")
    folds.train_rows(0)                       # rows to train on before fold 0 is tested
    folds.test_rows(0)                        # fold 0: the test split
    write_fold(folds, 0, "fold_0")            # both, as a release that every command of ours reads
    found = scores(folds, predictions)        # {"figures", "intervals", "by_label", "counts"}
    print(table({"my model": found}))

    LITEGPT_REAL_CXR=path/to/data python benchmarks/box_folds.py    # what is there, and what its controls reach

In: a release in VinDr-CXR's layout with a `manifest.csv` (image, patient_id, boxes), as `nih_320` is; `train_and_test`
takes any two sets of rows, phantoms for example. Predictions: {image_id: {"any": [(score, box), ...], "labels":
{label: [(score, box), ...]}, "point": (x, y)}}, boxes xyxy in [0, 1]. "any" holds boxes whatever their label; "point",
where something is most likely, may be missing, and so may "any" of all; a label's boxes are not found where it is
missing.

Fold 0 is the test split's boxed radiographs; those of the train split are drawn into folds 1 to 3 by patient. Before a
fold is tested, a model may learn from the boxed radiographs of the other folds and from the train split's "No finding"
of other patients. The test split's "No finding" are never trained on: they stand in average precision and FROC, beside
fold 0. A box of "Pneumonia", which is none of VinDr-CXR's findings, is learnt as "Lung Opacity"; in tests it counts
among boxes of any label, and for no label.

Scores: `ap_0.3`, `ap_0.5`, `found_at_1` and `found_at_4` (sensitivity at so many false alarms a radiograph, IoU .3) of
"any", where true boxes that overlap by more than .4 are one; `top1`, whether the best box of a boxed radiograph meets
any true one, and `point`, whether the point lies in one; `acc`, given the label: of each label that a radiograph has,
whether the best box of that label meets one of its own at IoU .3. Intervals are 95 %, 1,000 bootstrap draws by
patient; they say nothing of a training's seed. Controls: `shuffled`, each boxed radiograph gets another one's
predictions, mean of ten cyclic shifts; `prior`, without a picture: the boxes that cover most training boxes, each at
the mean of those that it covers, and of each label the one that meets most. "less_shuffled" and "less_prior" are the
differences, on the same draws.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np

from litegpt.datasets_scripts.preparation.merge_readers import keep_one_of_overlapping
from litegpt.datasets_scripts.preparation.prepare import load_release
from litegpt.datasets_scripts.rows import row_picture
from litegpt.datasets_scripts.vindr_cxr import LABEL_COLUMNS, SPELLINGS, read_release
from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.metrics.boxes import average_precision, froc_sensitivities, iou_of_pairs, match
from litegpt.metrics.intervals import Figures, patient_numbers
from litegpt.metrics.location_prior import best_boxes, location_prior
from litegpt.metrics.ratios import ratio
from litegpt.processing.answers import NO_FINDING

Box = Sequence[float]
Scored = Sequence[tuple[float, Box]]
Predictions = Mapping[str, Mapping[str, Any]]

RELEASE = "nih_320"
DRAWN_FOLDS = 3  # of the train split
PNEUMONIA, LEARNT_AS = "Pneumonia", "Lung Opacity"
ONE_BOX = 0.4  # true boxes of several annotators that overlap more are one
MET = 0.3
ANY, ACC, TOP1, POINT = "any", "acc", "top1", "point"
FALSE_ALARMS = (1, 4)
SHUFFLES = 10
OWN, SHUFFLED, PRIOR = "own", "shuffled", "prior"
NEVER = -1  # of a row that is in no tested fold
COLUMNS = ("ap_0.3", "ap_0.5", "found_at_1", "found_at_4", TOP1, POINT, ACC)
DIFFERENCES = ((PRIOR, ACC), (SHUFFLED, ACC), (SHUFFLED, "ap_0.3"))  # what tables show of them


class Truth(NamedTuple):
    """What is true of a radiograph: boxes of any label, of which none overlap much, and all boxes of each label."""

    any: list[list[float]]
    labels: dict[str, list[list[float]]]


@dataclass(frozen=True)
class BoxFolds:
    """Rows, which of them are trained on and tested when, and what is true of them.

    Attributes:
        rows: of `annotations.row_features`, with the findings that are learnt.
        patients: (rows,) names; "" is a patient of its own.
        fold: (rows,) in which fold the row's patient is; `NEVER` for one that is trained on in all.
        taught, tested: (rows,) bool: whether it is trained on in other folds, tested in its own.
        truths: (rows,) what is true.
    """

    rows: datasets.Dataset
    patients: list[str]
    fold: np.ndarray
    taught: np.ndarray
    tested: np.ndarray
    truths: list[Truth]

    @property
    def numbers(self) -> list[int]:
        """The folds, such as [0, 1, 2, 3]."""
        return sorted(set(self.fold[self.tested].tolist()))

    def train_numbers(self, fold: int) -> np.ndarray:
        """Which rows are trained on before a fold is tested."""
        return np.flatnonzero(self.taught & (self.fold != fold))

    def test_numbers(self, fold: int) -> np.ndarray:
        """Which rows are tested in a fold, those without a box too."""
        return np.flatnonzero(self.tested & (self.fold == fold))

    def train_rows(self, fold: int) -> datasets.Dataset:
        """The rows that are trained on before a fold is tested."""
        return self.rows.select(self.train_numbers(fold))

    def test_rows(self, fold: int) -> datasets.Dataset:
        """The rows that are tested in a fold."""
        return self.rows.select(self.test_numbers(fold))


# --- Folds -----------------------------------------------------------------------------------------------------------


def real_data(given: str | None = None) -> Path:
    """The folder of the boxed real radiographs, `nih_320` below what `--real_data` or LITEGPT_REAL_CXR names."""
    named = given or os.environ.get("LITEGPT_REAL_CXR")
    if not named:
        sys.exit("Name the folder of real radiographs with --real_data or LITEGPT_REAL_CXR.")
    folder = Path(named).resolve()
    for candidate in (folder / RELEASE, folder):
        if (candidate / "manifest.csv").is_file() and (candidate / "annotations").is_dir():
            return candidate
    sys.exit(f"{folder} holds no {RELEASE} with annotations/ and manifest.csv.")


def box_folds(data_dir: str | Path, cache_dir: str | Path | None = None) -> BoxFolds:
    """The folds of a release in VinDr-CXR's layout whose `manifest.csv` names the patients.

    Args:
        cache_dir: where the prepared rows are kept; the default of `datasets` if None.
    """
    data_dir = Path(data_dir)
    release = read_release(data_dir, merge="union")  # no radiograph is dropped because annotators differ
    cache = None if cache_dir is None else str(cache_dir)
    parts = {split: load_release(release, split, cache, num_proc=1) for split in ("train", "test")}
    split_of_row = np.array([split for split, part in parts.items() for _ in range(len(part))])
    rows = datasets.concatenate_datasets([parts["train"], parts["test"]])
    manifest = {Path(line["image"]).stem: line for line in _lines(data_dir / "manifest.csv")}
    ids, sizes = rows["image_id"][:], list(zip(rows["width"][:], rows["height"][:], strict=True))
    patients = [manifest[name]["patient_id"] for name in ids]
    more = [_pneumonia(manifest[name], *size) for name, size in zip(ids, sizes, strict=True)]
    names = rows.features["findings"].feature["label"].names
    findings = rows["findings"][:]
    truths = [truth(found, names, extra) for found, extra in zip(findings, more, strict=True)]
    learnt = [_with(found, names.index(LEARNT_AS), extra) for found, extra in zip(findings, more, strict=True)]
    feature = rows.features["findings"]
    rows = rows.remove_columns("findings").add_column("findings", learnt, feature=feature)

    boxed, normal = np.array([bool(t.any) for t in truths]), _is_normal(rows)
    is_test = split_of_row == "test"
    drawn = sorted({name for name, has, test in zip(patients, boxed, is_test, strict=True) if has and not test})
    order = np.random.default_rng(0).permutation(drawn)
    fold_of = dict(zip(order.tolist(), (np.arange(len(order)) % DRAWN_FOLDS + 1).tolist(), strict=True))
    fold = np.array([0 if t else fold_of.get(name, NEVER) for name, t in zip(patients, is_test, strict=True)])
    return BoxFolds(
        rows,
        patients,
        fold,
        taught=boxed | (normal & ~is_test),
        tested=boxed | (normal & is_test),
        truths=truths,
    )


def train_and_test(train: datasets.Dataset, test: datasets.Dataset) -> BoxFolds:
    """One fold, 0, of two sets of rows with the same labels: all that tell where something is, or that nothing is."""
    rows = datasets.concatenate_datasets([train, test])
    names = rows.features["findings"].feature["label"].names
    truths = [truth(found, names) for found in rows["findings"][:]]
    known = np.array([bool(t.any) for t in truths]) | _is_normal(rows)
    is_test = np.arange(len(rows)) >= len(train)
    patients = [name or "" for name in rows["patient_id"][:]] if "patient_id" in rows.features else [""] * len(rows)
    return BoxFolds(rows, patients, np.where(is_test, 0, NEVER), known & ~is_test, known & is_test, truths)


def truth(findings: Sequence[Mapping[str, Any]], names: Sequence[str], of_no_label: Sequence[Box] = ()) -> Truth:
    """What is true of a radiograph, of a row's findings and of boxes that count for no label."""
    labels: dict[str, list[list[float]]] = {}
    for finding in findings:
        labels.setdefault(names[finding["label"]], []).append([float(v) for v in finding["box"]])
    every = [*(box for boxes in labels.values() for box in boxes), *([*box] for box in of_no_label)]
    return Truth(one_of_overlapping(every), labels)


def one_of_overlapping(boxes: Sequence[Box]) -> list[list[float]]:
    """Boxes that overlap the mean of earlier ones by more than .4 are joined to it: the means."""
    groups: list[list[Box]] = []
    for box in boxes:
        for group in groups:
            if _iou([box], [np.mean(group, axis=0)])[0, 0] > ONE_BOX:
                group.append(box)
                break
        else:
            groups.append([box])
    return [np.mean(group, axis=0).tolist() for group in groups]


def write_fold(folds: BoxFolds, fold: int, folder: str | Path) -> Path:
    """Writes a fold as a release in VinDr-CXR's layout, train/ and test/; one that is there stays.

    Its rows are those of `train_rows` and `test_rows`, so every program that takes a data set takes the folder.
    """
    folder = Path(folder)
    finished = folder / "annotations" / "image_labels_test.csv"
    if finished.is_file():
        return folder
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", folds.train_rows(fold)), ("test", folds.test_rows(fold))):
        (folder / split).mkdir(exist_ok=True)
        names = rows.features["findings"].feature["label"].names
        diagnoses = rows.features["diagnoses"].feature.names
        reader = {"rad_id": "R1"} if split == "train" else {}
        boxes, labels = [], []
        for number in range(len(rows)):
            row = {name: value for name, value in rows[number].items() if name != "image"}
            row_picture(rows, number).save(folder / split / f"{row['image_id']}.png")
            size = np.array([row["width"], row["height"]] * 2)
            stated = {diagnoses[d] for d in row["diagnoses"]}
            for finding in row["findings"]:
                stated.add(names[finding["label"]])
                corners = zip(("x_min", "y_min", "x_max", "y_max"), finding["box"] * size, strict=True)
                box = {name: f"{value:.3f}" for name, value in corners}
                boxes.append({"image_id": row["image_id"], **reader, "class_name": names[finding["label"]], **box})
            columns = {name: int(SPELLINGS.get(name, name) in stated) for name in LABEL_COLUMNS}
            labels.append({"image_id": row["image_id"], **reader, **columns})
        columns = ["image_id", *reader, "class_name", "x_min", "y_min", "x_max", "y_max"]
        _write(folder / "annotations" / f"annotations_{split}.csv", boxes, columns)
        _write(folder / "annotations" / f"image_labels_{split}.csv", labels, ["image_id", *reader, *LABEL_COLUMNS])
    return folder


def _write(path: Path, lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _pneumonia(line: Mapping[str, str], width: int, height: int) -> list[list[float]]:
    """The manifest's boxes of Pneumonia, in [0, 1]."""
    size = np.array([width, height] * 2)
    return [(np.array(b["xyxy"]) / size).tolist() for b in json.loads(line["boxes"]) if b["label"] == PNEUMONIA]


def _with(findings: list[dict[str, Any]], label: int, boxes: Sequence[Box]) -> list[dict[str, Any]]:
    """The findings and those boxes, as one label, that overlap none of it by more than half."""
    same = [finding["box"] for finding in findings if finding["label"] == label]
    kept = keep_one_of_overlapping(np.array([*same, *boxes]).reshape(-1, 4))
    added = [boxes[place - len(same)] for place in kept if place >= len(same)]
    return [*findings, *({"label": label, "box": list(box), "readers": 1} for box in added)]


def _is_normal(rows: datasets.Dataset) -> np.ndarray:
    """(rows,) whether a row has no box and is said to have no finding."""
    number = rows.features["diagnoses"].feature.names.index(NO_FINDING)
    found, diagnoses = rows["findings"][:], rows["diagnoses"][:]
    return np.array([not f and number in d for f, d in zip(found, diagnoses, strict=True)])


# --- Scores ----------------------------------------------------------------------------------------------------------


def prior_predictions(folds: BoxFolds, which: Sequence[int] | None = None) -> dict[str, dict[str, Any]]:
    """The same boxes for all radiographs of a fold: where the boxes lie that may be trained on before it."""
    names, found = folds.rows["image_id"][:], {}
    all_labels = sorted({label for t in folds.truths for label in t.labels})
    for fold in folds.numbers if which is None else which:
        known = [folds.truths[number] for number in folds.train_numbers(fold)]
        every = location_prior([box for t in known for box in t.any])
        of_labels = [[{"label": n, "box": b} for n, boxes in t.labels.items() for b in boxes] for t in known]
        best = best_boxes(of_labels)
        # A label that is in no other fold has the best box of any.
        labels = {label: [(1.0, best[label])] if label in best else every[:1] for label in all_labels}
        for number in folds.test_numbers(fold):
            found[names[number]] = {ANY: every, "labels": labels}
    return found


def scores(
    folds: BoxFolds,
    predictions: Predictions,
    which: Sequence[int] | None = None,
    against: Mapping[str, Predictions] | None = None,
    num_shuffles: int = SHUFFLES,
) -> dict[str, Any]:
    """What the predictions of all folds together reach, beside the controls.

    Args:
        predictions: of each tested radiograph of the folds, as this file's head describes.
        which: folds that are scored, all by default.
        against: {name: other predictions}, whose difference stands as "less_NAME".

    Returns:
        "figures" and "intervals": {"own", "shuffled", "prior", "less_shuffled", "less_prior", "less_NAME"}, each with
        those of `COLUMNS` that the predictions allow; "by_label": {label: {"pairs", "own", "shuffled", "prior"}};
        "counts".

    Raises:
        KeyError: a radiograph has no predictions.
    """
    which = folds.numbers if which is None else list(which)
    numbers = np.concatenate([folds.test_numbers(fold) for fold in which])
    names = folds.rows["image_id"][:]
    ids, truths = [names[n] for n in numbers], [folds.truths[n] for n in numbers]
    patients = patient_numbers([folds.patients[n] for n in numbers])
    boxed = np.flatnonzero([bool(t.any) for t in truths])
    prior = prior_predictions(folds, which)
    own = [predictions[name] for name in ids]
    answers = {
        OWN: [_Answers(own, truths)],
        SHUFFLED: [_Answers(_shifted(own, boxed, by), truths) for by in _shifts(patients[boxed], num_shuffles)],
        PRIOR: [_Answers([prior[name] for name in ids], truths)],
    }
    for name, others in (against or {}).items():
        answers[name] = [_Answers([others[image] for image in ids], truths)]

    def statistic(weights: np.ndarray) -> Figures:
        values = {
            who: {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
            for who, found in ((who, [a.figures(weights) for a in of_who]) for who, of_who in answers.items())
        }
        figures: Figures = {(who, name): each for who, found in values.items() for name, each in found.items()}
        for who in list(values)[1:]:
            shared = values[OWN].keys() & values[who].keys()
            figures |= {(f"less_{who}", name): values[OWN][name] - values[who][name] for name in shared}
        return figures

    points, intervals = figures_and_intervals(statistic, len(ids), patients)
    return {
        "figures": nested(points),
        "intervals": nested(intervals),
        "by_label": _by_label({who: answers[who] for who in (OWN, SHUFFLED, PRIOR)}),
        "counts": {
            "folds": which,
            "boxed": len(boxed),
            "without a box": len(ids) - len(boxed),
            "patients": int(patients.max()) + 1,
            "boxes": sum(len(t.any) for t in truths),
            "pairs of radiograph and label": sum(len(t.labels) for t in truths),
        },
    }


class _Answers:
    """Predictions held against the truth, ready for any weights of the radiographs."""

    def __init__(self, predictions: Sequence[Mapping[str, Any]], truths: Sequence[Truth]):
        self.boxed = np.array([bool(t.any) for t in truths])
        self.matches, self.met, pairs = {}, {}, list(zip(predictions, truths, strict=True))
        if all(ANY in p for p in predictions):
            given = [
                [{"label": ANY, "box": np.clip(box, 0, 1).tolist(), "score": score} for score, box in p[ANY]]
                for p in predictions
            ]
            true = [[{"label": ANY, "box": box} for box in t.any] for t in truths]
            self.matches = {threshold: match(given, true, threshold) for threshold in (0.3, 0.5)}
            self.met[TOP1] = np.array([_meets(p[ANY], t.any) for p, t in pairs])
        if all(POINT in p for p, t in pairs if t.any):
            self.met[POINT] = np.array([bool(t.any) and _inside(p[POINT], t.any) for p, t in pairs])
        # Of each radiograph and each of its labels.
        self.image = np.array([image for image, t in enumerate(truths) for _ in t.labels], dtype=int)
        self.label = [label for t in truths for label in t.labels]
        self.found = np.array(_labels_met(predictions, truths), dtype=bool)

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """{name: (rows,)} of those of `COLUMNS` that can be computed."""
        nothing = np.full(len(weights), np.nan)
        figures = {
            f"ap_{threshold}": average_precision(of, weights).get(ANY, nothing)
            for threshold, of in self.matches.items()
        }
        if self.matches:
            found = froc_sensitivities(self.matches[MET], weights.shape[1], FALSE_ALARMS, weights)
            figures |= {f"found_at_{number}": found[:, place] for place, number in enumerate(FALSE_ALARMS)}
        of_boxed = weights * self.boxed
        figures |= {name: ratio(of_boxed @ met, of_boxed.sum(-1)) for name, met in self.met.items()}
        of_pairs = weights[:, self.image]
        return figures | {ACC: ratio(of_pairs @ self.found, of_pairs.sum(-1))}


def share_met(predictions: Sequence[Mapping[str, Any]], truths: Sequence[Truth]) -> float:
    """Acc given the label: `acc` alone, of any radiographs, those that were trained on say; NaN of no label."""
    met = _labels_met(predictions, truths)
    return float(ratio(sum(met), len(met)))


def _labels_met(predictions: Sequence[Mapping[str, Any]], truths: Sequence[Truth]) -> list[bool]:
    """Of each radiograph and each of its labels whether the best box of that label meets one of its own."""
    return [
        _meets(p.get("labels", {}).get(label, ()), boxes)
        for p, t in zip(predictions, truths, strict=True)
        for label, boxes in t.labels.items()
    ]


def _meets(scored: Scored, true: Sequence[Box]) -> bool:
    """Whether the box with the highest score has an IoU above .3 with a true one."""
    if not len(scored) or not len(true):
        return False
    best = max(scored, key=lambda pair: pair[0])[1]
    return bool((_iou([best], true) > MET).any())


def _inside(point: Sequence[float], boxes: Sequence[Box]) -> bool:
    return any(x1 <= point[0] <= x2 and y1 <= point[1] <= y2 for x1, y1, x2, y2 in boxes)


def _iou(boxes: Sequence[Box], others: Sequence[Box]) -> np.ndarray:
    """(n, m) of all pairs."""
    boxes, others = np.asarray(boxes, dtype=float), np.asarray(others, dtype=float)
    pairs = iou_of_pairs(np.repeat(boxes, len(others), axis=0), np.tile(others, (len(boxes), 1)))
    return pairs.reshape(len(boxes), len(others))


def _shifts(patients: np.ndarray, number: int) -> list[int]:
    """By how much the predictions are moved along the boxed radiographs, so that most come to another patient."""
    least = int(np.bincount(patients).max())
    possible = np.arange(least, len(patients) - least + 1)
    if not len(possible):
        possible = np.arange(1, max(2, len(patients)))
    return np.random.default_rng(0).choice(possible, min(number, len(possible)), replace=False).tolist()


def _shifted(predictions: Sequence[Any], boxed: np.ndarray, by: int) -> list[Any]:
    """The predictions, those of boxed radiographs moved along by so many of these."""
    moved = list(predictions)
    for place, other in zip(boxed, np.roll(boxed, -by), strict=True):
        moved[place] = predictions[other]
    return moved


def _by_label(answers: Mapping[str, Sequence[_Answers]]) -> dict[str, dict[str, float]]:
    labels = np.array(next(iter(answers.values()))[0].label)
    found = {who: np.mean([a.found for a in of_who], axis=0) for who, of_who in answers.items()}
    return {
        label: {"pairs": int((labels == label).sum())}
        | {who: float(values[labels == label].mean()) for who, values in found.items()}
        for label in sorted(set(labels.tolist()), key=lambda name: -int((labels == name).sum()))
    }


# --- What is shown ---------------------------------------------------------------------------------------------------


def table(
    results: Mapping[str, Mapping[str, Any]],
    columns: Sequence[str] = COLUMNS,
    differences: Sequence[tuple[str, str]] = DIFFERENCES,
) -> str:
    """Scores in Markdown, a line a run.

    Args:
        differences: (what the run is compared with, the figure), such as ("prior", "acc").
    """
    titles = [*columns, *(f"{name} less {other}" for other, name in differences)]
    lines = [f"| run | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, result in results.items():
        cells = [cell(result, OWN, column) for column in columns]
        cells += [cell(result, f"less_{other}", column, sign="+") for other, column in differences]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(result: Mapping[str, Any], who: str, name: str, sign: str = "") -> str:
    """A figure with its interval; empty where there is none."""
    value = result["figures"].get(who, {}).get(name)
    if value is None:
        return ""
    interval = result["intervals"].get(who, {}).get(name)
    return f"{value:{sign}.3f}" + ("" if interval is None else f" [{interval[0]:{sign}.2f}, {interval[1]:{sign}.2f}]")


def label_table(result: Mapping[str, Any]) -> str:
    """Acc of each label and of its controls, in Markdown."""
    lines = ["| label | pairs | own | shuffled | prior |", "|---|---|---|---|---|"]
    for label, found in result["by_label"].items():
        values = " | ".join(f"{found[who]:.2f}" for who in (OWN, SHUFFLED, PRIOR))
        lines.append(f"| {label} | {found['pairs']} | {values} |")
    return "\n".join(lines)


def main(real: str | None, cache_dir: str | None) -> None:
    folds = box_folds(real_data(real), cache_dir)
    for fold in folds.numbers:
        train, test = folds.train_numbers(fold), folds.test_numbers(fold)
        boxed = [sum(bool(folds.truths[n].any) for n in part) for part in (train, test)]
        print(
            f"fold {fold}: {len(train)} radiographs to train on, {boxed[0]} with a box; "
            f"{len(test)} to test, {boxed[1]} with a box"
        )
    prior = prior_predictions(folds)
    results = {
        "location prior, all folds": scores(folds, prior),
        "location prior, fold 0 (the test split)": scores(folds, prior, [0]),
    }
    for name, result in results.items():
        print(f"{name}: {result['counts']}")
    print(f"\n{table(results, differences=())}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real_data", dest="real", help=f"folder with {RELEASE}; else LITEGPT_REAL_CXR names it")
    parser.add_argument("--cache_dir", help="of the prepared rows; the default of `datasets` if not given")
    main(**vars(parser.parse_args()))
