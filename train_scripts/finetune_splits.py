"""Which radiographs a tower is fine-tuned on, chosen by and tested on; splits that share any are refused.

    splits = load_splits(arguments, "classification", seed=0)
    splits.train, splits.validation, splits.test     # rows
    splits.warnings                                  # what readers of the scores must know

In: a data set and the names of three splits. A validation that is the test, as in the lists that ECAMP published for
CheXpert (byte for byte the same), chooses the checkpoint that happens to suit the test: it is refused.
"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from datasets import Dataset

from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.patients import in_both, patients_of
from litegpt.evaluation_scripts.probe import nested_parts
from litegpt.train_scripts.arguments import SplitArguments
from litegpt.train_scripts.tower_tasks.detection import boxes_are_known


@dataclass(frozen=True)
class Splits:
    """The rows of three splits; `warnings` are sentences."""

    train: Dataset
    validation: Dataset
    test: Dataset
    warnings: list[str] = field(default_factory=list)


def load_splits(arguments: SplitArguments, task: str, seed: int) -> Splits:
    """The splits that the arguments name; of train the part that they ask for.

    For boxes, also where masks are made of them, radiographs of which a label is known and no box are left out of
    every split, see `boxes_are_known`.

    Args:
        task: classification, segmentation or detection.
        seed: of what a part holds.

    Raises:
        OSError, ValueError: the data cannot be used, a split is empty, or two splits have radiographs or (unless that
            is allowed) patients in common.
    """
    names = {
        "train": arguments.train_split,
        "validation": arguments.validation_split,
        "test": arguments.test_split,
    }
    rows = {
        split: load_rows(arguments.data_dir, name, arguments.cache_dir, arguments.num_proc)
        for split, name in names.items()
    }
    warnings = []
    for one, other in combinations(rows, 2):
        both = in_both(rows[one], rows[other])
        said = f"{arguments.data_dir}: the splits {names[one]} ({one}) and {names[other]} ({other}) have"
        if both["radiographs"]:
            raise ValueError(
                f"{said} {both['radiographs']:,} radiographs in common; --{other}_split must name others "
                "(litegpt prepare --validation_share 0.1 takes some out of train)."
            )
        if both["patients"]:
            if not arguments.allow_shared_patients:
                raise ValueError(
                    f"{said} {both['patients']:,} patients in common: prepare the data with splits by patient, "
                    "or give --allow_shared_patients, and the scores will say so."
                )
            warnings.append(f"patients in both {names[one]} and {names[other]}: {both['patients']:,}.")
    if task != "classification":
        for split, found in rows.items():
            if task == "segmentation" and "mask" in found.column_names:
                continue
            known = boxes_are_known(found)
            if not known.all():
                warnings.append(f"{split}: {(~known).sum():,} radiographs with labels and no box are left out.")
                rows[split] = found.select(np.flatnonzero(known))
    if arguments.part < 1 and len(rows["train"]):
        (part,) = nested_parts(len(rows["train"]), patients_of(rows["train"]), [seed])[f"{100 * arguments.part:g}"]
        rows["train"] = rows["train"].select(part)
    for split, found in rows.items():
        if not len(found):
            raise ValueError(f"{arguments.data_dir}: the split {names[split]} has no radiographs.")
    return Splits(**rows, warnings=warnings)
