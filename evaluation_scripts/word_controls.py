"""Answers in words that know nothing of the image, or the wrong one: what a figure is worth is beside theirs.

    blind = blind_answers("refer", asked, of_training)   # {"none": [[Given, ...]], "mean_box": [[Given, ...]]}
    shuffled_answers(asked, given, rng)                  # each question the answer to it about another image
    control_sample([0, 0, 1, 2])                         # images whose questions are asked about noise, too

In: questions of one task, their answers, and questions of other images from which a blind answer can be learnt. Out:
an answer to each question. A blind answer is as good as words alone let it be: of a question that was asked in
training it is that question's most frequent answer, of a phrase the mean of the phrase's boxes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.word_questions import WordQuestion
from litegpt.evaluation_scripts.word_scores import Given, told_answer
from litegpt.metrics.short_answers import words_of

SHUFFLES = 5  # random cycles, whose mean is the control
SAMPLED_IMAGES = 50  # whose questions are asked about noise and a black picture, too


def blind_answers(
    task: str, asked: Sequence[WordQuestion], learnt_from: Sequence[WordQuestion]
) -> dict[str, list[list[Given]]]:
    """By control one list of answers to the questions of a task.

    Args:
        learnt_from: questions of the same task whose true answers are known, of other images where there are any.

    Returns:
        Of refer "none", always no box, and "mean_box", always the mean of the boxes that the same phrase has, or all
        have; it is as probable as the phrase was present. Of the others "most_frequent".
    """
    if task == "refer":
        return {"none": [[Given("", [])] * len(asked)], "mean_box": [_mean_boxes(asked, learnt_from)]}
    if task == "question":
        by_kind = _most_frequent(learnt_from, lambda one: one.truth)
        by_text = _most_frequent(learnt_from, lambda one: one.about)
        anything = _most_frequent(learnt_from, lambda one: None)[None]
        answers = [by_text.get(one.about, by_kind.get(one.truth, anything)) for one in asked]
        return {"most_frequent": [[Given(text) for text in answers]]}
    text = Counter(sorted(one.answer for one in learnt_from)).most_common(1)[0][0]
    return {"most_frequent": [[told_answer(task, text)] * len(asked)]}


def _most_frequent(asked: Iterable[WordQuestion], key: Callable[[WordQuestion], Hashable]) -> dict[Hashable, str]:
    """By what `key` gives the most frequent true answer, in the words that are compared."""
    answers: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for one in sorted(asked, key=lambda one: one.answer):
        answers[key(one)][" ".join(words_of(one.answer))] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in answers.items()}


def _mean_boxes(asked: Sequence[WordQuestion], learnt_from: Sequence[WordQuestion]) -> list[Given]:
    boxes: dict[str | None, list[Sequence[float]]] = defaultdict(list)
    present: dict[str | None, list[bool]] = defaultdict(list)
    for one in learnt_from:
        for name in (one.about, None):  # None: of all phrases together
            boxes[name] += one.truth
            present[name].append(bool(one.truth))
    if not boxes[None]:
        return [Given("", [], 0.0)] * len(asked)
    means = {name: np.mean(of_phrase, axis=0).tolist() for name, of_phrase in boxes.items() if of_phrase}
    shares = {name: float(np.mean(of_phrase)) for name, of_phrase in present.items()}
    return [Given("", [means.get(one.about, means[None])], shares.get(one.about, shares[None])) for one in asked]


def shuffled_answers(
    asked: Sequence[WordQuestion], given: Sequence[Given], rng: np.random.Generator
) -> list[Given] | None:
    """Each question gets the answer to the same one about another image, in one random cycle of those that have it.

    Where no other image was asked the same it is the answer to another question of its kind.

    Returns:
        None where all are about one image.
    """
    if len({one.image for one in asked}) < 2:
        return None
    by_text: dict[Hashable, list[int]] = defaultdict(list)
    for number, one in enumerate(asked):
        by_text[one.about].append(number)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for about, members in by_text.items():
        alone = len({asked[number].image for number in members}) < 2
        kind = asked[members[0]].truth if asked[0].task == "question" else None
        groups[("other", kind) if alone else ("same", about)] += members
    result = list(given)
    for members in groups.values():
        by_image: dict[int, list[int]] = defaultdict(list)
        for number in members:
            by_image[asked[number].image].append(number)
        images = list(by_image)
        if len(images) < 2:  # the only question of its kind: any answer about another image
            others = [number for number, one in enumerate(asked) if one.image != images[0]]
            for number in members:
                result[number] = given[rng.choice(others)]
            continue
        for image, other in zip(images, random_cycle(len(images), rng), strict=True):
            for number in by_image[image]:
                result[number] = given[rng.choice(by_image[images[other]])]
    return result


def control_sample(images: Iterable[int], seed: int = 0) -> list[int]:
    """Up to `SAMPLED_IMAGES` of the images, the same in every run."""
    known = np.unique(list(images))
    drawn = np.random.default_rng(seed).permutation(len(known))[:SAMPLED_IMAGES]
    return known[np.sort(drawn)].tolist()
