"""Sex and age, as a table's cell or a DICOM tag writes them, to the values of the columns `sex` and `age`.

known_sex("F")        -> "F"        known_sex("O")         -> ""
age_in_years("058Y")  -> 58         age_in_years("414Y")   -> None
dicom_age("007M")     -> 0          dicom_age("000Y")      -> None
"""

import re

MAX_AGE = 120  # ChestX-ray14's table has ages up to 414


def known_sex(text: str) -> str:
    """F or M; "" for anything else: Other, unknown, or no value."""
    text = text.strip()
    return text if text in ("F", "M") else ""


def age_in_years(text: str) -> int | None:
    """58, or DICOM's 058Y, 007M, 003W, 020D, in whole years; None for what is neither, or above `MAX_AGE`."""
    match = re.fullmatch(r"(\d{1,5})([YMWD]?)", text.strip())
    if match is None:
        return None
    number, unit = int(match[1]), match[2] or "Y"
    years = int(number / {"Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}[unit])
    return years if years <= MAX_AGE else None


def dicom_age(text: str) -> int | None:
    """Patient's Age (0010,1010) in whole years; None where unknown.

    000Y is unknown: so machines fill in an age that nobody entered. The standard (PS3.5, 6.2, value representation AS)
    has days, weeks and months for those who are not yet one year old.
    """
    return None if text.strip() == "000Y" else age_in_years(text)
