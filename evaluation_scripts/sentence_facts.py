"""Whether sentences of reports are true of a radiograph, by what its row tells.

    truths = sentence_truths(rows, "facts")     # of each row a function; None: the row does not tell
    truths[0]("There is no cardiomegaly.")      # False, True, or None: it cannot be said

"facts": template sentences (`template_words.py`) against the row's findings; "labels": any sentences, by the states of
CheXpert's labels that a labeller reads in them and in the row's own report. These it can read wrongly: see
`report_labels.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from litegpt.datasets_scripts.report_labels import NO_FINDING as NOTHING_FOUND
from litegpt.datasets_scripts.report_labels import label_states
from litegpt.datasets_scripts.template_words import fact_of, place_of
from litegpt.evaluation_scripts.arguments import WordAnsweringArguments
from litegpt.evaluation_scripts.questions import label_names
from litegpt.metrics.report_labels import NEGATIVE, POSITIVE
from litegpt.processing.answers import NO_FINDING

if TYPE_CHECKING:  # it takes a second to import
    from datasets import Dataset

Truth = Callable[[str], bool | None]
_states = lru_cache(maxsize=100_000)(label_states)  # the same sentences come again and again


def truth_of_rows(args: WordAnsweringArguments) -> str:
    """What tells whether a sentence is true, as it was asked for or as the rows have it."""
    return args.truth or ("facts" if args.template_words else "labels")


def sentence_truths(rows: "Dataset", kind: str) -> list[Truth | None]:
    """Of each row what tells whether a sentence is true of it; None where the row tells nothing.

    Args:
        rows: pictures are not read.
        kind: one of `arguments.SENTENCE_TRUTHS`.
    """
    if kind == "labels":
        reports = rows["report_findings"][:] if "report_findings" in rows.column_names else [None] * len(rows)
        return [labels_truth(report) if report and report.strip() else None for report in reports]
    labels = label_names(rows)
    annotations = zip(rows["findings"][:], rows["diagnoses"][:], strict=True)
    return [_facts_of_row(*annotation, labels["finding"], labels["diagnosis"]) for annotation in annotations]


def _facts_of_row(
    findings: Sequence[Mapping[str, Any]],
    diagnoses: Sequence[int],
    labels: Sequence[str],
    diagnosis_labels: Sequence[str],
) -> Truth | None:
    if not findings and [diagnosis_labels[number] for number in diagnoses] != [NO_FINDING]:
        return None
    places: dict[str, set[str]] = {}
    for finding in findings:
        places.setdefault(labels[finding["label"]], set()).add(place_of(finding["box"]))
    return facts_truth(places, tuple(labels))


def facts_truth(places: Mapping[str, set[str]], labels: tuple[str, ...]) -> Truth:
    """What tells of template sentences whether they are true.

    A sentence that names a place is true where a box is there, even if it does not name all of them; where one place
    may hold the other, such as the right of both lower zones, it cannot be said.

    Args:
        places: by label of what is there, the zones of its boxes.
        labels: that template sentences speak of.
    """

    def truth(sentence: str) -> bool | None:
        fact = fact_of(sentence, labels)
        if fact is None:
            return None
        if not fact.present or fact.label not in places:
            return fact.present == (fact.label in places)
        elsewhere = set(fact.places) - places[fact.label]
        if not elsewhere:
            return True
        return None if any(_meet(place, other) for place in elsewhere for other in places[fact.label]) else False

    return truth


def _meet(place: str, other: str) -> bool:
    """Whether one of two different zones is on both sides and holds the other."""
    return place.split()[1] == other.split()[1] and "both" in (place.split()[0], other.split()[0])


def labels_truth(report: str) -> Truth:
    """What tells of sentences whether they are true, by the labels that they and a report state.

    A sentence is false where it calls a label positive that the report calls negative, or the other way round, and
    true where the report states all of its labels alike. Of a report that finds nothing all labels that it does not
    speak of are negative. What is uncertain on either side, or of which the report does not speak, cannot be said.
    """
    stated = _states(report)
    unspoken = NEGATIVE if stated.get(NOTHING_FOUND) == POSITIVE else None

    def truth(sentence: str) -> bool | None:
        alike = []
        for label, state in _states(sentence).items():
            if label != NOTHING_FOUND:
                both = {state, stated.get(label, unspoken)}
                alike.append(len(both) == 1 if both <= {POSITIVE, NEGATIVE} else None)
        if not alike or None in alike and False not in alike:
            return None
        return False not in alike

    return truth


def affirms(sentence: str, kind: str, labels: tuple[str, ...]) -> bool | None:
    """Whether a sentence says that something is there, or else that it is not; None where it says neither."""
    if kind == "facts":
        fact = fact_of(sentence, labels)
        return None if fact is None else fact.present
    states = {state for label, state in _states(sentence).items() if label != NOTHING_FOUND}
    return None if not states else states != {NEGATIVE}
