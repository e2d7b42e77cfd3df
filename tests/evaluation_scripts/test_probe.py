import numpy as np
import pytest

from litegpt.evaluation_scripts.probe import ProbeSet, nested_parts, probe_figures, probe_scores


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of which the first two show two labels; the second label is unknown of every fifth radiograph."""
    rng = np.random.default_rng(seed)
    truths = (rng.random((count, 2)) < 0.4).astype(float)
    features = np.hstack([4 * truths, np.zeros((count, 2))]) + rng.normal(size=(count, 4))
    truths[::5, 1] = np.nan
    return (features * [1, 1000, 1, 0] + 5).astype(np.float32), truths  # one scale is another one's, one never changes


def test_parts_are_nested_and_keep_patients_together():
    patients = np.repeat(np.arange(100), np.arange(100) % 4 + 1)[:200]
    parts = nested_parts(200, patients)
    for one, ten in zip(parts["1"], parts["10"], strict=True):
        assert set(one) < set(ten)
        for part, least in ((one, 2), (ten, 20)):
            assert least <= len(part) <= least + 3
            outside = np.setdiff1d(np.arange(200), part)
            assert not set(patients[part]) & set(patients[outside])
    assert parts["100"][0].tolist() == list(range(200)) and len(parts["10"]) == 3
    assert len({tuple(part) for part in parts["10"]}) == 3  # each seed draws others


def test_parts_without_patients_have_exactly_their_share():
    parts = nested_parts(1000)
    assert [len(part) for part in parts["1"] + parts["10"]] == [10] * 3 + [100] * 3
    assert [len(part) for part in nested_parts(24)["1"]] == [1] * 3


def test_a_probe_learns_what_features_show_whatever_their_scale():
    (train, truths), (test, test_truths) = drawn(300, 0), drawn(200, 1)
    scores = probe_scores(train, truths, test, np.arange(300))
    assert np.corrcoef(scores[:, 0], test_truths[:, 0])[0, 1] > 0.8
    known = np.isfinite(test_truths[:, 1])
    assert np.corrcoef(scores[known, 1], test_truths[known, 1])[0, 1] > 0.8


def test_a_label_that_a_part_lacks_ranks_nothing():
    train, truths = drawn(50, 0)
    part = np.flatnonzero(truths[:, 0] == 0)
    scores = probe_scores(train, truths, train, part)
    assert (scores[:, 0] == 0).all() and (scores[:, 1] != 0).any()


def test_the_scores_are_those_of_scikit_learns_own_pipeline():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (train, truths), (test, _) = drawn(300, 0), drawn(50, 1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    expected = model.fit(train.astype(float), truths[:, 0]).decision_function(test.astype(float))
    scores = probe_scores(train, truths, test, np.arange(300))[:, 0]
    np.testing.assert_allclose(scores - scores.mean(), expected - expected.mean(), atol=1e-3)


def test_figures_stand_beside_those_of_the_controls():
    (train, truths), (test, test_truths) = drawn(400, 0), drawn(200, 1)
    noise = [np.random.default_rng(seed).normal(size=(count, 4)) for seed, count in ((2, 400), (3, 200))]
    abnormal = np.nan_to_num(test_truths).any(1)
    parts = probe_figures(
        ProbeSet({"features": train, "pixels": noise[0]}, truths),
        ProbeSet({"features": test, "pixels": noise[1]}, test_truths),
        abnormal,
        ["a", "b"],
    )
    whole = parts["100"]
    assert list(parts) == ["1", "10", "100"] and parts["1"]["images"] == [4] * 3
    assert whole["figures"]["features"]["all"]["macro"] > 0.95
    assert whole["figures"]["pixels"]["all"]["macro"] == pytest.approx(0.5, abs=0.1)
    difference = whole["figures"]["features_less_pixels"]["all"]
    features, pixels = (whole["figures"][name]["all"] for name in ("features", "pixels"))
    assert difference["macro"] == pytest.approx(features["macro"] - pixels["macro"])
    low, high = whole["intervals"]["features_less_pixels"]["all"]["macro"]
    assert 0.3 < low < difference["macro"] < high
    assert difference["per_label"]["b"] == pytest.approx(features["per_label"]["b"] - pixels["per_label"]["b"])
    by_seed = parts["10"]["by_seed"]["features"]["all"]
    assert len(by_seed) == 3 and parts["10"]["figures"]["features"]["all"]["macro"] == pytest.approx(np.mean(by_seed))
