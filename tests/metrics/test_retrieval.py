import doctest
import json
import time
import tracemalloc
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from litegpt.metrics.intervals import bootstrap_intervals
from litegpt.metrics.ranks import (
    chance,
    mean_rank,
    median_rank,
    ranks,
    recall_at,
    retrieval_ranks,
    retrieval_scores,
    unique_texts,
    unit_length,
)
from litegpt.metrics.retrieval import retrieval

METRIC = Path(__file__).parents[2] / "metrics" / "retrieval"


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(METRIC), keep_in_memory=True)


def random_pairs(seed, images=40, texts=25, dimensions=6):
    """Images that lie near their texts, some texts of several images."""
    rng = np.random.default_rng(seed)
    of_image = np.concatenate([np.arange(texts), rng.integers(texts, size=images - texts)])
    rng.shuffle(of_image)
    text_embeddings = rng.normal(size=(texts, dimensions))[of_image]
    return text_embeddings + rng.normal(size=(images, dimensions)), text_embeddings, [f"text {t}" for t in of_image]


def slow_rank(scores, right):
    """The worst place of the best right candidate, other right ones taken away."""
    best = max(score for index, score in enumerate(scores) if index in right)
    return 1 + sum(score >= best for index, score in enumerate(scores) if index not in right)


# --- Ranks -----------------------------------------------------------------------------------------------------------


def test_ties_by_hand():
    """Scores .9, .5, .5, .1: the two in the middle share rank 3."""
    scores = np.array([[0.9], [0.5], [0.5], [0.1]])
    assert [int(ranks([[1.0]], scores, [right])[0]) for right in range(4)] == [1, 3, 3, 4]


def test_the_best_of_several_right_candidates_counts_and_the_others_are_not_in_its_way():
    """Scores .9 (wrong), .8 (right), .7 (right), .6 (wrong): rank 2. With .8 tied by a right one: 2 as well."""
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    assert ranks([[1.0]], scores, [5], names=[4, 5, 5, 6]).tolist() == [2]
    scores[2] = 0.8
    assert ranks([[1.0]], scores, [5], names=[4, 5, 5, 6]).tolist() == [2]
    assert ranks([[1.0]], scores, [5], names=[4, 5, 6, 6]).tolist() == [3]


@pytest.mark.parametrize("dimensions", [1, 7, 64, 513])
@pytest.mark.parametrize("images", [2, 9, 67])
def test_a_constant_model_has_the_worst_rank(images, dimensions):
    """Also where the sums of equal embeddings differ by their rounding."""
    constant = np.tile(np.random.default_rng(0).normal(size=dimensions), (images, 1))
    assert ranks(constant, constant, np.arange(images)).tolist() == [images] * images
    results = retrieval_scores(constant, constant, [str(i) for i in range(images)])
    for direction in ("image_to_text", "text_to_image"):
        assert results[direction]["mean_rank"] == results[direction]["median_rank"] == images
        assert results[direction]["recall_at_1"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_ranks_equal_argsort_where_there_are_no_ties(seed):
    rng = np.random.default_rng(seed)
    queries, candidates, truth = rng.normal(size=(30, 5)), rng.normal(size=(50, 5)), rng.integers(50, size=30)
    order = np.argsort(-(queries @ candidates.T), axis=1)
    found = ranks(queries, candidates, truth)
    assert found.tolist() == [1 + list(row).index(right) for row, right in zip(order, truth, strict=True)]
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(truth, queries @ candidates.T, k=k, labels=np.arange(50))
        assert recall_at(found, k) == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_equal_a_double_loop_with_ties_and_several_right_ones(seed, decimals):
    rng = np.random.default_rng(seed)
    queries, candidates = rng.normal(size=(20, 3)), rng.normal(size=(30, 3))
    if decimals is not None:
        queries, candidates = queries.round(decimals), candidates.round(decimals)
    names = np.concatenate([np.arange(12), rng.integers(12, size=18)])
    truth = rng.integers(12, size=20)
    expected = [
        slow_rank([sum(a * b for a, b in zip(q, c, strict=True)) for c in candidates], set(np.flatnonzero(names == t)))
        for q, t in zip(queries, truth, strict=True)
    ]
    assert ranks(queries, candidates, truth, names).tolist() == expected


def test_blocks_change_nothing(monkeypatch):
    pairs = random_pairs(0)
    whole = retrieval_ranks(*pairs)
    monkeypatch.setattr("litegpt.metrics.ranks.SCORES_AT_ONCE", 70)
    assert [values.tolist() for values in retrieval_ranks(*pairs)] == [values.tolist() for values in whole]


def test_unique_texts_are_exactly_equal_and_in_the_order_of_first_appearance():
    texts, index = unique_texts(["b", "a", "b", "A", "a ", "a"])
    assert texts == ["b", "a", "A", "a "] and index.tolist() == [0, 1, 0, 2, 3, 1]
    assert unique_texts([])[0] == []


# --- Both directions -------------------------------------------------------------------------------------------------


def test_retrieval_by_hand(metric):
    """The card's example: cosines of the third image are .75 with its text, .90 with the other one."""
    results = metric.compute(
        predictions=[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]],
        references=[[1.0, 0.2], [0.2, 1.0], [1.0, 0.2]],
        texts=["clear lungs.", "the heart is enlarged.", "clear lungs."],
    )
    to_text, to_image = results["image_to_text"], results["text_to_image"]
    assert to_text["recall_at_1"] == pytest.approx(2 / 3) and to_text["recall_at_5"] == 1
    assert to_text["mean_rank"] == pytest.approx(4 / 3) and to_text["median_rank"] == 1
    assert to_image["recall_at_1"] == to_image["mean_rank"] == to_image["median_rank"] == 1
    assert (results["num_images"], results["num_texts"]) == (3, 2)
    assert to_text["chance"] == {"recall_at_1": 0.5, "recall_at_5": 1, "recall_at_10": 1, "mean_rank": 1.5}
    # One text has two images of three, the other one: (2/3 + 1/3) / 2 and (4/3 + 2) / 2.
    assert to_image["chance"]["recall_at_1"] == pytest.approx(0.5)
    assert to_image["chance"]["mean_rank"] == pytest.approx(5 / 3)
    assert json.loads(json.dumps(results, allow_nan=False)) == results


@pytest.mark.parametrize("seed", range(3))
def test_both_directions_equal_a_double_loop(metric, seed):
    images, text_embeddings, texts = random_pairs(seed)
    results = metric.compute(predictions=images.tolist(), references=text_embeddings.tolist(), texts=texts)
    unique = list(dict.fromkeys(texts))
    firsts = [text_embeddings[texts.index(text)] for text in unique]

    def cosine(a, b):
        return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)

    to_text = [
        slow_rank([cosine(image, other) for other in firsts], {unique.index(text)})
        for image, text in zip(images, texts, strict=True)
    ]
    to_image = [
        slow_rank([cosine(embedding, image) for image in images], {i for i, own in enumerate(texts) if own == text})
        for text, embedding in zip(unique, firsts, strict=True)
    ]
    for direction, expected in (("image_to_text", to_text), ("text_to_image", to_image)):
        for k in (1, 5, 10):
            share = sum(rank <= k for rank in expected) / len(expected)
            assert results[direction][f"recall_at_{k}"] == pytest.approx(share)
        assert results[direction]["mean_rank"] == pytest.approx(np.mean(expected))
        assert results[direction]["median_rank"] == np.median(expected)


def test_no_figure_depends_on_the_order_or_the_length_of_the_embeddings():
    images, text_embeddings, texts = random_pairs(1)
    results = retrieval_scores(images, text_embeddings, texts)
    order = np.random.default_rng(0).permutation(len(texts))
    lengths = np.random.default_rng(1).uniform(0.1, 9, (len(texts), 1))
    moved = retrieval_scores((images * lengths)[order], text_embeddings[order] * 3, [texts[i] for i in order])
    for direction in ("image_to_text", "text_to_image"):
        assert moved[direction].pop("chance") == pytest.approx(results[direction].pop("chance"))
        assert moved[direction] == pytest.approx(results[direction])


def test_embeddings_that_know_nothing_are_at_chance_within_the_interval():
    rng = np.random.default_rng(0)
    images, text_embeddings, texts = random_pairs(2, images=300, texts=200, dimensions=16)
    blind = rng.normal(size=images.shape)
    found = retrieval_ranks(blind, text_embeddings, texts)
    expected = retrieval_scores(blind, text_embeddings, texts)

    def figures(weights):
        return {
            ("image_to_text",): mean_rank(found.image_to_text, weights),
            ("recall",): recall_at(found.image_to_text, 10, weights),
            ("text_to_image",): mean_rank(found.text_to_image, weights * found.share),
        }

    intervals = bootstrap_intervals(figures, num_images=300)
    for name, direction, value in (
        ("image_to_text", "image_to_text", "mean_rank"),
        ("recall", "image_to_text", "recall_at_10"),
        ("text_to_image", "text_to_image", "mean_rank"),
    ):
        low, high = intervals[(name,)]
        assert low < expected[direction]["chance"][value] < high
    knowing = retrieval_scores(images, text_embeddings, texts)
    assert knowing["image_to_text"]["mean_rank"] < intervals[("image_to_text",)][0]


def test_chance_is_what_random_orders_give():
    rng = np.random.default_rng(0)
    assert chance([1, 1], 20) == pytest.approx(
        {"recall_at_1": 1 / 20, "recall_at_5": 5 / 20, "recall_at_10": 10 / 20, "mean_rank": 21 / 2}
    )
    assert chance([1], 3)["recall_at_10"] == 1
    drawn = []  # three right ones of 20: the wrong ones before the best of them
    for _ in range(4000):
        drawn.append(1 + np.flatnonzero(rng.permutation(20) < 3)[0])
    assert chance([3], 20)["mean_rank"] == pytest.approx(np.mean(drawn), abs=0.25)
    assert chance([3], 20)["recall_at_5"] == pytest.approx(np.mean(np.array(drawn) <= 5), abs=0.03)


# --- Weights ---------------------------------------------------------------------------------------------------------


def test_weights_equal_queries_that_are_really_repeated():
    rng = np.random.default_rng(0)
    found = rng.integers(1, 30, size=15)
    weights = rng.multinomial(16, np.full(15, 1 / 15), size=30)  # 16: the median lies between two
    weights[0], weights[1] = 1, 0
    for figure, plain in (
        (lambda *a: recall_at(a[0], 5, *a[1:]), lambda r: np.mean(r <= 5)),
        (mean_rank, np.mean),
        (median_rank, np.median),
    ):
        values = figure(found, weights)
        assert values.shape == (30,) and np.isnan(values[1])
        assert isinstance(figure(found), float) and values[0] == pytest.approx(figure(found))
        for row in (0, *range(2, 30)):
            expected = plain(np.repeat(found, weights[row]))
            assert values[row] == pytest.approx(expected)
            alone = figure(found, weights[row])
            assert isinstance(alone, float) and alone == pytest.approx(expected)
    with pytest.raises(ValueError, match="weights are for 14 images, not for 15"):
        mean_rank(found, weights[:, :14])


@pytest.mark.parametrize("texts", [24, 25])
@pytest.mark.parametrize("seed", range(3))
def test_shares_make_each_text_count_once(seed, texts):
    pairs = random_pairs(seed, texts=texts)
    found = retrieval_ranks(*pairs)
    unique, of_image = unique_texts(pairs[2])
    _, first = np.unique(of_image, return_index=True)
    of_text = found.text_to_image[first]
    assert found.share.sum() == pytest.approx(len(unique))
    assert mean_rank(found.text_to_image, found.share) == pytest.approx(np.mean(of_text))
    assert median_rank(found.text_to_image, found.share) == np.median(of_text)


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_what_is_no_embedding_is_refused(metric):
    good = [[1.0, 0.0], [0.0, 1.0]]
    texts = ["a", "b"]
    for value in (float("nan"), float("inf"), None):
        with pytest.raises(ValueError, match="Number 1 of the embeddings is not finite"):
            metric.compute(predictions=[[1.0, 0.0], [0.0, value]], references=good, texts=texts)
    with pytest.raises(ValueError, match="Embedding 0 has the length 0"):
        metric.compute(predictions=good, references=[[0.0, 0.0], [0.0, 1.0]], texts=texts)
    with pytest.raises(ValueError, match="are not numbers, as many for each"):
        metric.compute(predictions=[[1.0], [0.0, 1.0]], references=good, texts=texts)
    with pytest.raises(ValueError, match="2 dimensions, the candidates 3"):
        metric.compute(predictions=good, references=[[1.0, 0, 0], [0, 1.0, 0]], texts=texts)
    with pytest.raises(ValueError, match="no pairs"):
        metric.compute(predictions=[], references=[], texts=[])
    with pytest.raises(ValueError, match="shape"):
        unit_length([1.0, 2.0])


def test_numbers_that_do_not_fit_are_refused():
    good = np.eye(3)
    with pytest.raises(ValueError, match="3 images, 2 embeddings of texts and 3 texts"):
        retrieval_ranks(good, good[:2], ["a", "b", "c"])
    with pytest.raises(ValueError, match="Query 1 has no right candidate: 3"):
        ranks(good, good, [0, 3, 1])
    with pytest.raises(ValueError, match="Query 0 has no right candidate: -1"):
        ranks(good, good, [-1, 0, 1])
    with pytest.raises(ValueError, match="one right candidate"):
        ranks(good, good, [0, 1])
    with pytest.raises(ValueError, match="Recall at 0"):
        recall_at([1, 2], 0)
    for bad in ([0, 1], [[1]], [float("nan")]):
        with pytest.raises(ValueError, match="from 1 on"):
            mean_rank(bad)
    assert np.isnan(mean_rank([])) and np.isnan(median_rank([])) and np.isnan(recall_at([], 1))


def test_the_example_of_the_docstring(monkeypatch):
    monkeypatch.chdir(METRIC.parents[1])
    example = doctest.DocTestParser().get_doctest(
        retrieval._KWARGS_DESCRIPTION, {"evaluate": evaluate}, "retrieval", None, 0
    )
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=3)


def test_ten_thousand_with_ten_thousand_never_stand_in_memory_at_once():
    embeddings = np.random.default_rng(0).normal(size=(10_000, 16))
    tracemalloc.start()
    start = time.process_time()
    found = ranks(embeddings, embeddings, np.arange(10_000))
    assert time.process_time() - start < 30
    assert tracemalloc.get_traced_memory()[1] < 100e6  # all scores would be 800 MB
    tracemalloc.stop()
    assert found.mean() < 100
