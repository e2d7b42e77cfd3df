"""A regression on findings ranks what they tell; a diagnosis that is too rare keeps the scores it had."""

import numpy as np

from litegpt.benchmarks.diagnoses_from_findings import regressed
from litegpt.metrics.probabilities import auroc


def test_what_findings_tell_is_learnt_and_a_rare_diagnosis_is_left_alone():
    rng = np.random.default_rng(0)
    fit, test = rng.random((300, 3)), rng.random((200, 3))
    truths = np.stack([fit[:, 0] + 0.1 * rng.random(300) > 0.7, np.arange(300) < 4], axis=1)
    otherwise = rng.random((200, 2))
    scores = regressed(fit, test, truths, otherwise)
    assert auroc(scores[:, 0], test[:, 0] > 0.7) > 0.98
    assert np.array_equal(scores[:, 1], otherwise[:, 1])
