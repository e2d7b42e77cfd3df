"""What the page shows of an answer: rows of findings and diagnoses, what speaks against it, and where it is from.

    shown = shown_answer(line, processor)
    shown["sources"][0]["rows"][0]
    # {"number": 1, "index": 0, "label": "Cardiomegaly", "score": 0.87, "threshold": 0.31, "above": True,
    #  "box": {"xmin": 389, ...}, "colour": "#ffd25a", "dash": "", "from": []}

In: a line of the predictions that was asked without a threshold, and the checkpoint's processor, for its labels and
operating points. Out: plain values, as JSON has them. A finding can be told from others by its number, its colour and
the dashes of its outline: one of the three is enough.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from litegpt.common.overlay import colour_of_label, shortened
from litegpt.dicom_output.result_uids import ANSWERED, with_boxes_of
from litegpt.processing.answers import NO_FINDING
from litegpt.processing.tasks import ANSWER_KINDS, GROUNDED_REPORT, PLACES, REPLY, REPORT, split_question

# Whose boxes: a line's key -> what the page calls them, and which of the processor's operating points are theirs.
SOURCES = {
    ANSWERED: ("the answer", "score_thresholds"),
    "candidates": ("the answer and what it leaves out", "candidate_thresholds"),
    "view_findings": ("several views together", "view_thresholds"),
    "detected_findings": ("the detector", "detector_thresholds"),
    "fused_findings": ("answer and detector together", "fused_thresholds"),
}
DASHES = ("", "9 4", "2 4", "14 4 2 4", "5 3")  # SVG's stroke-dasharray, in pixels of the screen


def shown_answer(line: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """All that the page shows of a line.

    Args:
        line: boxes in pixels, with all findings, whatever their scores.
        processor: the checkpoint's `LiteGPTProcessor`.
    """
    return {
        "file": line["file"],
        "width": line["width"],
        "height": line["height"],
        "view": line.get("view"),
        "laterality": line.get("laterality"),
        "sources": sources(line, processor),
        "no_finding": line["probabilities"].get("identify", {}).get(NO_FINDING),
        "diagnoses": diagnosis_rows(line),
        "answers": dict(line["answers"]),
        "warnings": warnings(line),
    }


def sources(line: Mapping[str, Any], processor: Any) -> list[dict[str, Any]]:
    """Each choice of boxes that the line has, the answer's first."""
    found = []
    for key, (name, of_thresholds) in SOURCES.items():
        if key not in line:
            continue
        items = [*line["findings"], *line[key]] if key == "candidates" else line[key]
        thresholds = getattr(processor, of_thresholds, None) or {}
        rows = finding_rows(items, thresholds, processor.finding_labels)
        found.append({"key": key, "name": name, "rows": rows, "has_operating_points": bool(thresholds)})
    return found


def finding_rows(
    items: list[Mapping[str, Any]], thresholds: Mapping[str, float], labels: list[str]
) -> list[dict[str, Any]]:
    """Findings, the surest first; without operating points each is above, and without a score, too."""
    order = sorted(range(len(items)), key=lambda index: -(items[index]["score"] or 0.0))
    rows = []
    for number, index in enumerate(order, 1):
        item = items[index]
        label, score, threshold = item["label"], item["score"], thresholds.get(item["label"])
        rows.append(
            {
                "number": number,
                "index": index,
                "label": label,
                "score": score,
                "threshold": threshold,
                "above": score is None or threshold is None or score >= threshold,
                "box": dict(item["box"]),
                "colour": colour_of_label(label),
                "dash": DASHES[labels.index(label) % len(DASHES)] if label in labels else "",
                "from": list(item.get("source", ())),
            }
        )
    return rows


def diagnosis_rows(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every diagnosis with its probability, the surest first; of an answer without them those that it names."""
    named = {item["label"]: item["score"] for item in line["diagnoses"]}
    probabilities = {**named, **line["probabilities"].get("vqa", {})}
    rows = [
        {"label": label, "probability": probability, "named": label in named}
        for label, probability in probabilities.items()
    ]
    return sorted(rows, key=lambda row: -(row["probability"] or 0.0))


def warnings(line: Mapping[str, Any]) -> list[str]:
    """What is doubtful about this radiograph, or not understood of its answer."""
    malformed = [f"The answer to [{task}] is not understood: {why}" for task, why in line["malformed"].items() if why]
    return [*malformed, *line["warnings"]]


# --- Questions in words ---------------------------------------------------------------------------------------------


def shown_words(question: str, output: Mapping[str, Any]) -> dict[str, Any]:
    """All that the page shows of the answer to a question in words: rows, each with the outlines of its boxes.

    Args:
        question: "refer: enlarged heart", as the pipeline has been asked.
        output: of the pipeline.
    """
    task, about = split_question(question)
    rows = []
    for item in output.get("phrases", ()):
        seen = "seen" if item["boxes"] else "not seen"
        rows.append(words_row(item["phrase"], item["present"], item["boxes"], [seen]))
    for item in output.get("replies", ()):
        rows.append(words_row(item["text"] or "(an empty answer)", None, (), ["unverified"]))
    for key in (REPORT.output, GROUNDED_REPORT.output):
        for item in output.get(key, ()):
            marks = ["doubtful"] if item["doubtful"] else []
            rows.append(words_row(item["text"], item["probability"], item.get("boxes", ()), marks))
    return {
        "question": question,
        "task": task,
        "about": about,
        "rows": rows,
        "malformed": next((why for why in output["malformed"].values() if why), None),
    }


def words_row(
    text: str, probability: float | None, boxes: Sequence[Mapping[str, Any]], marks: list[str]
) -> dict[str, Any]:
    """A phrase, a reply or a sentence; `marks`: what is to be known of it, in a word each."""
    outlines = [
        {
            "number": number,
            "label": shortened(text),
            "score": box["score"],
            "box": dict(box["box"]),
            "colour": colour_of_label(text),
            "dash": DASHES[1] if "doubtful" in marks else "",
        }
        for number, box in enumerate(boxes, 1)
    ]
    return {"text": text, "probability": probability, "marks": marks, "outlines": outlines}


def with_words(line: Mapping[str, Any], words: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A line with what was asked in words beside, as if all had been asked at once.

    Args:
        words: by question, what the pipeline returned to each.
    """
    merged = {**line, "tasks": [*line["tasks"], *words]} if words else dict(line)
    for output in words.values():
        for name in ("answers", "probabilities", "malformed"):
            merged[name] = {**merged[name], **output[name]}
        for kind in (PLACES, REPLY, REPORT, GROUNDED_REPORT):
            if kind.output in output:
                merged[kind.output] = [*merged.get(kind.output, ()), *output[kind.output]]
        merged["warnings"] = list(dict.fromkeys([*merged["warnings"], *output["warnings"]]))
    return merged


# --- What is filed ---------------------------------------------------------------------------------------------------


def is_calibrated(processor: Any) -> bool:
    """Whether the scores of findings and of diagnoses were calibrated: both have a temperature other than 1."""
    return all(processor.score_temperatures[kind.name] != 1 for kind in ANSWER_KINDS)


def at_operating_point(line: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """The line as `threshold="operating_point"` gives it, for what is filed; as it is where there are no points.

    What the answer leaves out and reaches its point stands among the findings, as the pipeline has it.
    """
    if not processor.score_thresholds:
        return dict(line)
    kept = {"threshold": "operating_point"}
    for key, (_, of_thresholds) in SOURCES.items():
        if key in line:
            thresholds = getattr(processor, of_thresholds)
            kept[key] = [item for item in line[key] if _reaches(item, thresholds)]
    if "candidates" in line:
        thresholds = processor.candidate_thresholds
        named = [{**item, "source": ["answer"]} for item in line["findings"] if _reaches(item, thresholds)]
        kept["findings"] = named + [{**item, "source": ["candidate"]} for item in kept["candidates"]]
        kept["candidates"] = [item for item in line["candidates"] if not _reaches(item, thresholds)]
    return {**line, **kept}


def filed_line(line: Mapping[str, Any], processor: Any, source: str) -> dict[str, Any]:
    """What DICOM objects are made of: the boxes of one of `SOURCES`, those that reach their operating points.

    Raises:
        ValueError: the line has no such boxes.
    """
    if source not in SOURCES or source not in line:
        raise ValueError(f"this answer has no boxes of {source}.")
    kept = at_operating_point(line, processor)
    # With what the answer leaves out, the findings have it already.
    return kept if source == "candidates" else with_boxes_of(kept, source)


def _reaches(item: Mapping[str, Any], thresholds: Mapping[str, float]) -> bool:
    return item["score"] is None or item["score"] >= thresholds.get(item["label"], 0.0)
