"""What a CXR-CLIP checkpoint knows: zero-shot, retrieval and linear probes, each beside what would be reached without.

    litegpt evaluate-cxr-clip --model_name_or_path outputs/cxr_clip/checkpoint --data_dir prepared/vindr-cxr \\
        --output_dir outputs/eval --split test --train_split train

Writes `metrics.json`, `report.md` and `report.html`, and below `embeddings/` what the checkpoint made of radiographs
and texts: the same command reads them again, and an interrupted one goes on where it stopped.

Zero-shot needs labels, retrieval reports, a probe `--train_split`; what the data does not allow is left out, and said.
Controls: vectors of other radiographs; knowing only which radiographs are abnormal; texts of other studies; probes of
16 x 16 grey pixels and of the same network with random weights (`--controls false`: without the latter).
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from litegpt.common.arguments import parse
from litegpt.common.files import weights_sha256, write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.image_labels import abnormal, label_matrix, label_names
from litegpt.datasets_scripts.label_prompts import class_prompts
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.datasets_scripts.tables import plain
from litegpt.evaluation_scripts.arguments import CXRCLIPEvaluationArguments
from litegpt.evaluation_scripts.embeddings import Encoder
from litegpt.evaluation_scripts.evaluate_litegpt import bootstrap_facts, versions
from litegpt.evaluation_scripts.patients import in_both, patients_of
from litegpt.evaluation_scripts.probe import FEATURES, FEW_IMAGES, ProbeSet, probe_figures
from litegpt.evaluation_scripts.ranking import usable_labels
from litegpt.evaluation_scripts.reports.cxr_clip import html_report, write_report
from litegpt.evaluation_scripts.retrieval import has_reports, is_frontal, retrieval_figures, study_pairs
from litegpt.evaluation_scripts.zero_shot import (
    FIVE,
    class_accuracy,
    class_scores,
    five_classes,
    five_columns,
    pair_vectors,
    wording_pairs,
    zero_shot_scores,
)
from litegpt.modeling_litegpt.model_card import recorded_data_sets
from litegpt.modeling_litegpt.provenance import short_name
from litegpt.modeling_towers.checkpoints import load_cxr_clip
from litegpt.processing.answers import NO_FINDING

FEW_POSITIVES = 30  # labels with fewer have wide intervals


@program
def main(args: CXRCLIPEvaluationArguments) -> None:
    with refuse_bad_input():
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
        train = load_rows(args.data_dir, args.train_split, args.cache_dir, args.num_proc) if args.train_split else None
        data_set = data_set_facts(args.data_dir)
        model, processor = load_cxr_clip(args.model_name_or_path, dtype=args.dtype)
    if args.frontal_only:
        rows, train = without_laterals(rows), None if train is None else without_laterals(train)
    if not len(rows) or train is not None and not len(train):
        raise Refusal(
            f"{args.data_dir}: the split {args.train_split if len(rows) else args.split} has no radiographs."
        )
    output_dir = Path(args.output_dir)
    encoder = Encoder(model, processor, output_dir / "embeddings", args.batch_size, args.num_proc)
    metrics = evaluate(args, encoder, rows, train)
    trained_on = [facts["name"] for facts in recorded_data_sets(model.config)]
    if data_set["name"] in trained_on:
        metrics["warnings"].insert(
            0,
            f"the checkpoint was trained on {data_set['name']}, so these radiographs are of a source that it knows, "
            "and it has seen those that were among them.",
        )
    metrics["data_set"] = {
        **data_set,
        "split": f"{args.split}, without laterals" if args.frontal_only else args.split,
        "train_split": args.train_split,
        "radiographs": len(rows),
        "abnormal": int(abnormal(rows).sum()),
    }
    metrics["weights"] = weights_sha256(args.model_name_or_path)
    metrics["run"] = {"checkpoint": short_name(args.model_name_or_path), "trained_on": trained_on, **versions()}
    metrics["bootstrap"] = bootstrap_facts(rows)
    names = (metrics["run"]["checkpoint"], Path(args.data_dir).resolve().name)
    write_text(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_text(output_dir / "report.md", write_report(metrics, *names))
    write_text(output_dir / "report.html", html_report(metrics, *names))
    print(f"{output_dir / 'report.md'}: {write_report(metrics, *names).splitlines()[2]}")


@dataclass(frozen=True)
class Split:
    """What is known of a split's radiographs.

    Attributes:
        names: the labels that the rows speak of, without "No finding".
        truths: (images, labels) 1, 0 or NaN.
        abnormal: (images,) bool.
        patients: (images,) numbers; None where no patient is known to have two radiographs.
    """

    rows: Dataset
    names: list[str]
    truths: np.ndarray
    abnormal: np.ndarray
    patients: np.ndarray | None

    @classmethod
    def of(cls, rows: Dataset) -> "Split":
        names = [name for name in label_names(rows.features) if plain(name) != plain(NO_FINDING)]
        return cls(rows, names, label_matrix(rows, names), abnormal(rows), patients_of(rows))

    def patients_of(self, chosen: np.ndarray) -> np.ndarray | None:
        """Those of some radiographs, numbered from 0 on."""
        return None if self.patients is None else np.unique(self.patients[chosen], return_inverse=True)[1]


class LeftOut(Exception):
    """Why a task cannot be measured, in words."""


def evaluate(
    args: CXRCLIPEvaluationArguments, encoder: Encoder, rows: Dataset, train: Dataset | None
) -> dict[str, Any]:
    """The part of metrics.json that is measured.

    Returns:
        "zero_shot", "classes", "retrieval" and "probe", each None where it was not asked or the data does not allow
        it; "left_out", {label or task: reason}; "warnings", sentences.
    """
    split = Split.of(rows)
    labels, left_out = usable_labels(split.names, split.truths, args.min_positives)
    warnings = _overlaps(rows, train)
    few = [split.names[place] for place in labels if (split.truths[:, place] == 1).sum() < FEW_POSITIVES]
    if few:
        warnings.append(f"fewer than {FEW_POSITIVES} positive radiographs, so wide intervals: {', '.join(few)}.")
    twin_name, twin = "", None
    if args.controls and "probe" in args.tasks and train is not None and len(labels):
        twin_name = f"random-{hashlib.sha256(train._fingerprint.encode()).hexdigest()[:12]}"
        twin = functools.cache(lambda: encoder.untrained_twin(train))
    arrays = encoder.images(rows, twin, twin_name)
    tasks = {
        "zero_shot": lambda: zero_shot(args.wordings, encoder, split, labels, arrays["vectors"], left_out),
        "classes": lambda: classes(encoder, split, arrays["vectors"]),
        "retrieval": lambda: retrieval(encoder, split, train, arrays["vectors"], left_out),
        "probe": lambda: probe(split, labels, arrays, train, lambda: encoder.images(train, twin, twin_name), left_out),
    }
    metrics: dict[str, Any] = dict.fromkeys(tasks)
    for name, measure in tasks.items():
        if name in args.tasks:
            try:
                metrics[name] = measure()
            except LeftOut as reason:
                left_out[name] = str(reason)
    for part, scores in (metrics["probe"] or {"parts": {}})["parts"].items():
        if min(scores["images"]) < FEW_IMAGES:
            warnings.append(f"the probe at {part} % learns from few radiographs ({min(scores['images'])}): noise.")
    return metrics | {"left_out": left_out, "warnings": warnings}


def zero_shot(
    wordings: Sequence[str],
    encoder: Encoder,
    split: Split,
    labels: np.ndarray,
    vectors: np.ndarray,
    left_out: dict[str, str],
) -> dict[str, Any]:
    """Zero-shot of the labels that have sentences in any of the wordings.

    Raises:
        LeftOut: there are none.
    """
    pairs = {wording: wording_pairs(split.names, wording) for wording in wordings}
    spoken = [place for place in labels if any(found[place] for found in pairs.values())]
    left_out |= {f"{split.names[place]}, zero-shot": "no sentences" for place in labels if place not in spoken}
    if not spoken:
        raise LeftOut("no label has sentences and enough radiographs")
    pairs = {wording: [found[place] for place in spoken] for wording, found in pairs.items()}
    sides = [side for found in pairs.values() for pair in found if pair is not None for side in pair]
    vector_of = _vectors(encoder, [text for side in sides for text in side])
    return zero_shot_scores(
        vectors,
        {wording: pair_vectors(found, vector_of) for wording, found in pairs.items()},
        split.truths[:, spoken],
        split.abnormal,
        [split.names[place] for place in spoken],
        split.patients,
    )


def classes(encoder: Encoder, split: Split, vectors: np.ndarray) -> dict[str, Any]:
    """Which of CheXpert's five competition labels, over the radiographs that have exactly one.

    Raises:
        LeftOut: a label has no such radiograph.
    """
    columns = five_columns(split.names)
    true_classes = np.array([]) if columns is None else five_classes(split.truths[:, columns])
    chosen = np.flatnonzero(true_classes >= 0)
    if len(np.unique(true_classes[chosen])) < len(FIVE):
        raise LeftOut("not each of CheXpert's five competition labels has a radiograph with none of the other four")
    prompts = [class_prompts(label) for label in FIVE]
    vector_of = _vectors(encoder, [text for texts in prompts for text in texts])
    scores = class_scores(vectors[chosen], prompts, vector_of)
    return class_accuracy(scores, true_classes[chosen], split.patients_of(chosen))


def retrieval(
    encoder: Encoder, split: Split, train: Dataset | None, vectors: np.ndarray, left_out: dict[str, str]
) -> dict[str, Any]:
    """Retrieval over the studies that have a text.

    Raises:
        LeftOut: there are not two.
    """
    pairs = study_pairs(split.rows) if has_reports(split.rows) else None
    if pairs is None or len(pairs.texts) < 2:
        raise LeftOut("the data has no reports")
    if pairs.without_text:
        left_out["studies, retrieval"] = f"{pairs.without_text:,} have no text"
    vector_of = _vectors(encoder, pairs.texts)
    known = None if train is None or not has_reports(train) else set(study_pairs(train).texts)
    text_vectors = np.stack([vector_of[text] for text in pairs.texts])
    patients = split.patients_of(pairs.indices)
    return retrieval_figures(vectors[pairs.indices], text_vectors, pairs.texts, known, patients)


def probe(
    split: Split,
    labels: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    train: Dataset | None,
    train_arrays: Callable[[], Mapping[str, np.ndarray]],
    left_out: dict[str, str],
) -> dict[str, Any]:
    """Probes of the labels that the training split has, too.

    Raises:
        LeftOut: there are none, or no training split.
    """
    if train is None:
        raise LeftOut("there is no --train_split")
    known = Split.of(train)
    has_both = (known.truths == 1).any(0) & (known.truths == 0).any(0)
    left_out |= {
        f"{split.names[place]}, probe": "not in the training split" for place in labels if not has_both[place]
    }
    labels = labels[has_both[labels]]
    if not len(labels):
        raise LeftOut("no label has enough radiographs")
    names = [split.names[place] for place in labels]
    twin_names = [name for name in arrays if name.startswith("random")]
    sources = dict(zip((FEATURES, "pixels", "random"), ("pooled", "pixels", *twin_names), strict=False))
    learnt = train_arrays()
    parts = probe_figures(
        ProbeSet({name: learnt[source] for name, source in sources.items()}, known.truths[:, labels], known.patients),
        ProbeSet({name: arrays[source] for name, source in sources.items()}, split.truths[:, labels], split.patients),
        split.abnormal,
        names,
    )
    return {"labels": names, "parts": parts}


def without_laterals(rows: Dataset) -> Dataset:
    """The rows whose view is frontal or unknown."""
    return rows.select([index for index, view in enumerate(rows["view"][:]) if not view or is_frontal(view)])


def _vectors(encoder: Encoder, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
    """{text: its vector}, each text encoded once."""
    unique = list(dict.fromkeys(texts))
    return dict(zip(unique, encoder.texts(unique), strict=True))


def _overlaps(rows: Dataset, train: Dataset | None) -> list[str]:
    """Warnings of radiographs and patients that stand in both splits."""
    return [
        f"{what} of the split that are in the training split too: {both:,}; probes have seen them."
        for what, both in ({} if train is None else in_both(rows, train)).items()
        if both
    ]


if __name__ == "__main__":
    main(*parse([CXRCLIPEvaluationArguments], None, "evaluate_cxr_clip.py", __doc__))
