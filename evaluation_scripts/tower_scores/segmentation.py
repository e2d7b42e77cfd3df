"""Dice of the masks that a fine-tuned tower gives, beside what would be reached without looking.

    mask_scores(answers, true, prior, patients)

In: masks of the test radiographs, predicted ones packed by `numpy.packbits`. Out: "figures" and "intervals" (95 %,
bootstrap by patient where patients are known). Each figure (`litegpt.metrics.dice`: all, with mask, without mask,
balanced) stands beside three controls: `predict_nothing`; `shuffled`, ten shuffles in which every radiograph gets
another one's mask; and `prior`, one and the same region for all, which suits the training masks best (`best_region`).

Masks are compared at the tower's input size, as the papers do, not at the radiograph's own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.controls import SHUFFLES, random_cycle
from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.metrics.dice import AMONG, dice, mean_dice, nothing_predicted, pixel_counts
from litegpt.metrics.intervals import Figures
from litegpt.metrics.ratios import macro_mean, ratio

TOWER, SHUFFLED, PRIOR, NOTHING = "tower", "shuffled", "prior", "predict_nothing"
AT_ONCE = 256  # masks in memory
SHARES = tuple(number / 20 for number in range(1, 20))  # of the training masks: how often a pixel of the region is in


def unpacked(answers: np.ndarray, side: int) -> np.ndarray:
    """(n, side, side) bool, of (n, bytes) uint8."""
    return np.unpackbits(answers, axis=1, count=side * side).reshape(-1, side, side).astype(bool)


def counts_of_answers(answers: np.ndarray, true: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """(radiographs, 3) as `pixel_counts`, some masks at a time.

    Args:
        answers: (radiographs, bytes) packed.
        true: (radiographs, side, side) 0 or 1, which may lie in a file.
        others: (radiographs,) whose answer each of them gets; None: its own.
    """
    parts = []
    for start in range(0, len(true), AT_ONCE):
        stretch = slice(start, start + AT_ONCE)
        given = answers[stretch] if others is None else answers[others[stretch]]
        parts.append(pixel_counts(unpacked(given, true.shape[-1]), true[stretch].astype(bool)))
    return np.concatenate(parts)


def best_region(true: np.ndarray, has_mask: np.ndarray) -> np.ndarray:
    """(side, side) bool: the pixels that lie in at least some share of the masks, of the share with the highest Dice.

    Args:
        true: (radiographs, side, side) 0 or 1 of training, of which those with a mask count.
        has_mask: (radiographs,) bool.
    """
    places = np.flatnonzero(has_mask)
    blocks = [places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE)]
    frequency = sum(true[block].sum(axis=0, dtype=np.int64) for block in blocks) / max(1, len(places))
    regions = np.stack([frequency >= share for share in SHARES]).reshape(len(SHARES), -1)
    sizes, totals = regions.sum(axis=1), np.zeros(len(SHARES))
    for block in blocks:
        masks = true[block].reshape(len(block), -1).astype(np.float32)
        common = masks @ regions.T.astype(np.float32)
        totals += ratio(2 * common, sizes + masks.sum(axis=1, keepdims=True)).sum(axis=0)
    return regions[totals.argmax()].reshape(true.shape[1:])


def mask_scores(
    answers: np.ndarray, true: np.ndarray, prior: np.ndarray, patients: np.ndarray | None
) -> dict[str, Any]:
    """Dice of the tower and of the controls.

    Args:
        answers: (radiographs, bytes) predicted masks, packed.
        true: (radiographs, side, side) 0 or 1.
        prior: (side, side) bool, the region that is given to every radiograph.
        patients: (radiographs,) numbers from 0 on; None: each is another one's.

    Returns:
        "counts" {"with mask", "without mask"}; "figures" and "intervals": {control: {among: mean Dice}}, and
        "tower_less_CONTROL", whose intervals are of the difference on the same draws.
    """
    rng = np.random.default_rng(0)
    own = counts_of_answers(answers, true)
    everywhere = np.broadcast_to(np.packbits(prior.ravel()), answers.shape)
    counts = {
        TOWER: [own],
        SHUFFLED: [counts_of_answers(answers, true, random_cycle(len(true), rng)) for _ in range(SHUFFLES)],
        PRIOR: [counts_of_answers(everywhere, true)],
        NOTHING: [nothing_predicted(own)],
    }

    def statistic(weights: np.ndarray) -> Figures:
        figures: Figures = {}
        for name, of_name in counts.items():
            for among in AMONG:
                figures[name, among] = np.mean([mean_dice(given, among, weights) for given in of_name], axis=0)
        controls = [name for name in counts if name != TOWER]
        for name in controls:
            for among in AMONG:
                figures[f"{TOWER}_less_{name}", among] = figures[TOWER, among] - figures[name, among]
        return figures

    points, intervals = figures_and_intervals(statistic, len(true), patients)
    with_mask = int((own[:, 1] > 0).sum())
    return {
        "counts": {"with mask": with_mask, "without mask": len(own) - with_mask},
        "figures": nested(points),
        "intervals": nested(intervals),
    }


def mean_dices(answers: np.ndarray, true: np.ndarray) -> Mapping[str, float]:
    """{"dice", "dice_with_mask", "dice_balanced"} of a validation; NaN where there is no such radiograph.

    "dice_balanced" is of the radiographs that there are, where all of them have a mask or none has.
    """
    counts = counts_of_answers(answers, true)
    with_mask, without_mask = mean_dice(counts, "with mask"), mean_dice(counts, "without mask")
    return {
        "dice": mean_dice(counts),
        "dice_with_mask": with_mask,
        "dice_balanced": macro_mean([with_mask, without_mask]),
    }


def dices(answers: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(radiographs,) Dice of each."""
    return dice(counts_of_answers(answers, true))
