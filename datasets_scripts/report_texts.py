"""The text of radiology reports: its sections, and the marks that de-identification left in it.

    findings, impression = sections_of(" FINDINGS:\n The lungs are clear.\n\n IMPRESSION:  No acute process.\n")
    findings                                                        # "The lungs are clear."
    without_masks("Sternotomy XXXX. Seen by Dr. ___, unchanged.")   # "Sternotomy. Seen by Dr., unchanged."

Reports of MIMIC-CXR are lines of text; a header is a line's start: one blank, capitals, a colon. `without_masks`
is for what trains on texts: rows keep the marks.
"""

import re

# As MIMIC-CXR's authors find headers (https://github.com/MIT-LCP/mimic-cxr): a new line, one blank, capitals, a colon.
HEADER = re.compile(r"^ ([A-Z][A-Z ()/,-]*):(?=\s|$)", re.MULTILINE)
# How the headers of the two sections begin, as people write and mistype them. One that names both, such as FINDINGS
# AND IMPRESSION, belongs to the section that it names first.
FINDINGS_HEADER = re.compile(r"FIND|FINID|(REPORT|DESCRIPTION|OBSERVATIONS?)$")
IMPRESSION_HEADER = re.compile(r"(FINAL )?(IMPRES|IMPERS|IMPRS|CONCLUSION|SUMMARY|OPINION|INTERPRETATION|ASSESSMENT)")
# A header that names the picture stands before its description: PORTABLE AP CHEST, TWO VIEWS OF THE CHEST. One that
# asks for it or looks back does not.
VIEW_HEADER = re.compile(
    r"(?!.*(EXAM|COMPARISON|TECHNIQUE|INDICATION|HISTORY|STUDY|STUDIES|PROCEDURE|REASON|TYPE|PRIOR|ORDER|ADDENDUM))"
    r".*\b(CHEST|VIEWS?|RADIOGRAPHS?)\b"
)
PARAGRAPHS = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
# Open-i writes XXXX, MIMIC ___; what joins a mark to a word or another mark goes with it: ___-year-old, XXXX/XXXX.
MASK = re.compile(r"[-/]?(?:X{3,}|_{2,})(?:\s?[-/:.]?\s?(?:X{3,}|_{2,}))*(?:[-/](?=\w))?")


def joined(text: str) -> str:
    """A text in one line, words apart by one blank."""
    return " ".join(text.split())


def sections_of(report: str) -> tuple[str | None, str | None]:
    """Findings and impression of a report as MIMIC-CXR has them, in one line each; None where there is none.

    Of several sections of one kind the last that has text counts: addenda stand on top. Where a report has neither,
    its last section's text after the first empty line is the impression, and of a report without headers its last
    paragraph.
    """
    findings = views = impression = None
    sections = _split(report.replace("\r\n", "\n").replace("\r", "\n"))
    for header, text in sections:
        text = joined(text)
        if not text:
            continue
        if FINDINGS_HEADER.match(header):
            findings = text
        elif IMPRESSION_HEADER.match(header):
            impression = text
        elif VIEW_HEADER.match(header):
            views = text
    findings = findings or views
    if findings is None and impression is None:
        header, text = sections[-1]
        paragraphs = [paragraph for paragraph in map(joined, PARAGRAPHS.split(text.strip())) if paragraph]
        impression = " ".join(paragraphs[1:] if header else paragraphs[-1:]) or None
    return findings, impression


def _split(report: str) -> list[tuple[str, str]]:
    """[(header, text)]; what stands before the first header has the header ""."""
    matches = list(HEADER.finditer(report))
    starts = [0, *(match.end() for match in matches)]
    ends = [*(match.start() for match in matches), len(report)]
    headers = ["", *(joined(match[1]) for match in matches)]
    return [(header, report[start:end]) for header, start, end in zip(headers, starts, ends, strict=True)]


def without_masks(text: str) -> str:
    """A report's text without the marks of de-identification (XXXX, ___), with blanks and punctuation made good."""
    if not MASK.search(text):
        return joined(text)
    text = MASK.sub(" ", text)
    text = re.sub(r"\(\s*[,.;:/-]*\s*\)|\[\s*\]", " ", text)  # brackets with nothing left in them
    text = re.sub(r"\s+([.,;:?!)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r"[,;:]+(?=[.,;:])", "", text)  # of ",," and ",." the last one stays
    text = re.sub(r"\.(?:\s*[.])+(?!\w)", ".", text)
    return joined(re.sub(r"^[\s.,;:?!/-]+", "", text))
