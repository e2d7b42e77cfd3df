"""What of a study is shown: pictures, sections, sentences, prompts."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from litegpt.datasets_scripts.label_prompts import sentences
from litegpt.train_scripts.arguments import StudyArguments
from litegpt.train_scripts.studies import Studies, swapped_sentences
from tests.small_cxr_clip import LABELS, REPORTS, row, rows_of

DRAWS = 60


def study(number: int, *views: str, **values) -> list[dict]:
    return [row(100 * number + image, study_id=f"s{number}", view=view, **values) for image, view in enumerate(views)]


def draws(studies: Studies, number: int = 0, count: int = DRAWS) -> list[tuple[list[int], list[str]]]:
    """(rows, texts) of one study, `count` times."""
    rng = np.random.default_rng(0)
    drawn = [studies.draw([number], rng) for _ in range(count)]
    return [(one.rows[:, 0].tolist(), [texts[0] for texts in one.texts]) for one in drawn]


def parts(text: str) -> list[str]:
    return re.split(r"(?<=\.) ", text)


def said_of(text: str, labels=LABELS) -> set[tuple[str, str]]:
    """(label, state) of every sentence of a text of prompts."""
    known = {
        sentence: (label, state)
        for label in labels
        for state in ("negative", "uncertain", "positive")
        for sentence in sentences(label, state)
    }
    return {known[sentence] for sentence in parts(text)}


def test_two_pictures_are_of_distinct_views_whenever_a_study_has_them():
    rows = rows_of(study(0, "PA", "PA", "LATERAL", "PA") + study(1, "PA", "PA", "PA") + study(2, "AP"))
    studies = Studies(rows, StudyArguments())
    views = rows["view"][:]
    for (first, second), _ in draws(studies, 0):
        assert {views[first], views[second]} == {"PA", "LATERAL"}
    assert {row for pair, _ in draws(studies, 0) for row in pair} == {0, 1, 2, 3}
    of_one_view = [pair for pair, _ in draws(studies, 1)]
    assert all(first != second for first, second in of_one_view) and len(set(map(tuple, of_one_view))) == 6
    assert all(pair == [7, 7] for pair, _ in draws(studies, 2))


def test_two_texts_are_both_sections_whenever_a_report_has_them():
    found = [texts for _, texts in draws(Studies(rows_of([row(0)]), StudyArguments()))]
    assert all({text[5] for text in texts} == {"f", "i"} for texts in found)
    assert {texts[0][5] for texts in found} == {"f", "i"}


def test_sentences_change_places_and_none_is_lost_or_comes_twice():
    findings = row(0)["report_findings"]
    for impression in (row(0)["report_impression"], None):
        entry = row(0, report_impression=impression)
        found = [text for _, pair in draws(Studies(rows_of([entry]), StudyArguments())) for text in pair]
        found = [text for text in found if text[5] == "f"]
        assert all(Counter(parts(text)) == Counter(parts(findings)) for text in found)
        assert len(set(found)) > 3 and found.count(findings) > DRAWS / 4  # half of them stay as they were
        unmoved = draws(Studies(rows_of([entry]), StudyArguments(augment=False)))
        assert all(text in (findings, impression) for _, pair in unmoved for text in pair)
    assert swapped_sentences(" One sentence. ", random.Random(0)) == "One sentence."


def test_a_lone_section_is_shown_as_it_is_beside_itself_in_another_order():
    entry = row(0, report_impression="")
    for _, texts in draws(Studies(rows_of([entry]), StudyArguments())):
        assert entry["report_findings"] in texts


def test_marks_of_de_identification_are_not_learned():
    entry = row(0, report_findings="Seen XXXX today.", report_impression="___")
    assert all(
        texts == ["Seen today."] * 2 for _, texts in draws(Studies(rows_of([entry]), StudyArguments()), count=3)
    )


def test_a_study_without_a_report_has_prompts_of_its_labels_with_three_negatives():
    rows = rows_of([row(0, labels=[1, 3], report_findings=None, report_impression="")])
    seen = set()
    for _, texts in draws(Studies(rows, StudyArguments())):
        for text in texts:
            said = said_of(text)
            assert {label for label, state in said if state == "positive"} == {"Cardiomegaly", "Edema"}
            negative = {label for label, state in said if state == "negative"}
            assert len(negative) == 3 and len(parts(text)) == 5 and not negative & {"Cardiomegaly", "Edema"}
            seen |= negative
    assert seen == {"Atelectasis", "Consolidation", "Effusion", "Pneumothorax"}
    for _, texts in draws(Studies(rows, StudyArguments(negatives=0))):
        assert all(len(parts(text)) == 2 for text in texts)


def test_what_a_labeller_of_reports_found_is_said_whole():
    mentioned = [{"label": label, "state": state} for label, state in ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 2))]
    rows = rows_of([row(0, mentioned=mentioned)], columns=("study_id", "mentioned"))
    for _, texts in draws(Studies(rows, StudyArguments()), count=10):
        for text in texts:
            assert said_of(text) == {*((label, "negative") for label in LABELS[:5]), ("Pneumothorax", "uncertain")}


def test_prompts_stand_in_for_one_of_two_texts_as_often_as_asked():
    rows = rows_of([row(0)])
    always = [
        [text.startswith("Mark") for text in texts] for _, texts in draws(Studies(rows, StudyArguments(prompts=1)))
    ]
    assert all(sum(of_report) == 1 for of_report in always) and {one[0] for one in always} == {True, False}
    half = [texts for _, texts in draws(Studies(rows, StudyArguments(prompts=0.5)), count=200)]
    assert 70 < sum(any(not text.startswith("Mark") for text in texts) for texts in half) < 130
    alone = draws(Studies(rows, StudyArguments(labels_only=True)))
    assert not any(text.startswith("Mark") for _, texts in alone for text in texts)


def test_the_first_of_a_study_is_the_same_each_time_frontal_and_whole():
    rows = rows_of([*study(0, "LATERAL", "AP", "PA"), row(9, labels=[0], report_findings="", report_impression=None)])
    studies = Studies(rows, StudyArguments())
    drawn = [studies.first([1, 0]) for _ in range(3)]
    assert all(one.rows.tolist() == [[3, 1]] for one in drawn)
    assert drawn[0].texts == drawn[1].texts == drawn[2].texts
    assert drawn[0].texts[0][1] == f"{row(0)['report_findings']} {row(0)['report_impression']}"
    assert ("Atelectasis", "positive") in said_of(drawn[0].texts[0][0])
    assert studies.first_rows()["image_id"][:] == ["image1", "image9"] and "image" not in studies.first_rows()[0]


def test_without_sampling_a_study_shows_its_first_picture_and_whole_report():
    rows = rows_of(study(0, "LATERAL", "PA"))
    whole = f"{row(0)['report_findings']} {row(0)['report_impression']}"
    plain = StudyArguments(study_sampling=False, augment=False)
    assert all(drawn == ([1, 1], [whole, whole]) for drawn in draws(Studies(rows, plain), count=5))
    one_view = StudyArguments(study_sampling=False, augment=False, multi_view=False)
    assert all(drawn == ([1], [whole]) for drawn in draws(Studies(rows, one_view), count=5))


def test_with_one_view_picture_and_text_are_still_drawn():
    found = draws(Studies(rows_of(study(0, "LATERAL", "PA")), StudyArguments(multi_view=False)))
    assert {len(rows) for rows, _ in found} == {len(texts) for _, texts in found} == {1}
    assert {rows[0] for rows, _ in found} == {0, 1} and {texts[0][5] for _, texts in found} == {"f", "i"}


def test_as_released_sections_come_twice_sometimes_and_in_order_and_normal_has_no_sentence():
    entry = row(0)
    whole = {entry["report_findings"], entry["report_impression"]}
    found = [texts for _, texts in draws(Studies(rows_of([entry]), StudyArguments(release=True)))]
    assert all(set(texts) <= whole for texts in found)
    assert DRAWS / 4 < sum(texts[0] == texts[1] for texts in found) < 3 * DRAWS / 4
    normal = row(1, labels=[6], report_findings="", report_impression="")
    rows = rows_of([normal])
    for release in (True, False):
        texts = [text for _, pair in draws(Studies(rows, StudyArguments(release=release))) for text in pair]
        assert any(("No finding", "positive") in said_of(text) for text in texts) != release


def test_shuffled_reports_are_all_there_but_not_with_their_own_pictures():
    entries = [row(number) for number in range(40)]
    own = Studies(rows_of(entries), StudyArguments())
    shuffled = Studies(rows_of(entries), StudyArguments(shuffle_reports=True), seed=0)
    numbers = list(range(40))
    right, wrong = own.first(numbers), shuffled.first(numbers)
    assert Counter(right.texts[0]) == Counter(wrong.texts[0]) and right.rows.tolist() == wrong.rows.tolist()
    # A permutation leaves one in its place on average, more than four in one of 300.
    assert sum(a == b for a, b in zip(right.texts[0], wrong.texts[0], strict=True)) <= 4
    drawn = shuffled.draw(numbers, np.random.default_rng(0))
    marks = [re.search(r"Mark .(\d+)", text)[1] for text in wrong.texts[0]]
    for texts in drawn.texts:  # the same other study's in every draw
        assert [re.search(r"Mark .(\d+)", text)[1] for text in texts] == marks
    other = Studies(rows_of(entries), StudyArguments(shuffle_reports=True), seed=1)
    assert other.first(numbers).texts != wrong.texts


@pytest.mark.parametrize("columns", [REPORTS, ("report_findings", "report_impression")], ids=["null", "no column"])
def test_rows_without_a_study_are_studies_of_their_own(columns):
    studies = Studies(rows_of([row(number, study_id=None) for number in range(3)], columns), StudyArguments())
    assert len(studies) == 3
    assert [draws(studies, number, 2)[1][0] for number in range(3)] == [[0, 0], [1, 1], [2, 2]]


def test_the_rows_of_a_study_need_not_stand_together():
    entries = [row(0, study_id="a"), row(1, study_id="b"), row(2, study_id="a", view="LATERAL")]
    studies = Studies(rows_of(entries), StudyArguments())
    assert len(studies) == 2 and {tuple(rows) for rows, _ in draws(studies, 0)} == {(0, 2), (2, 0)}


def test_studies_without_a_text_are_left_out_and_counted():
    labels = [*LABELS, "Other lesion"]
    silent = row(1, labels=[7], report_findings="", report_impression="")
    mentioned = ("study_id", "report_findings", "report_impression", "mentioned")
    entries = [{**entry, "mentioned": []} for entry in (row(0), silent, row(2))]
    studies = Studies(rows_of(entries, mentioned, labels), StudyArguments())
    assert len(studies) == 2 and studies.left_out == 1
    assert draws(studies, 1, 1)[0][0] == [2, 2] and studies.first([1]).texts[0][0].startswith("Mark f2")
    with pytest.raises(ValueError, match="No row has a report, or a label that there are prompts for"):
        Studies(rows_of([{**silent, "mentioned": []}], mentioned, labels), StudyArguments())


def test_a_study_is_abnormal_where_any_of_its_pictures_is():
    entries = [row(0, labels=[6], study_id="a"), row(1, labels=[2], study_id="a"), row(2, labels=[6], study_id="b")]
    assert Studies(rows_of(entries), StudyArguments()).abnormal.tolist() == [True, False]


def test_a_draw_hangs_on_its_random_numbers_alone():
    rows = rows_of([*study(0, "PA", "LATERAL", "AP"), *study(1, "PA", "LATERAL")])
    one, other = (Studies(rows, StudyArguments(prompts=0.5)).draw([0, 1], np.random.default_rng(7)) for _ in range(2))
    assert one.rows.tolist() == other.rows.tolist() and one.texts == other.texts


def test_pictures_are_not_decoded():
    entry = row(0, image={"bytes": b"no picture", "path": None})
    studies = Studies(rows_of([entry]), StudyArguments())
    assert draws(studies, count=1) and studies.first([0]) and list(studies.corpus())


def test_a_tokenizer_learns_from_all_sections():
    entries = [row(0), row(1, report_impression=None)]
    texts = list(Studies(rows_of(entries), StudyArguments()).corpus())
    assert texts == [row(0)["report_findings"], row(0)["report_impression"], row(1)["report_findings"]]
