"""CXR-CLIP's Tables 2 to 4 (arXiv 2310.13292) as printed, in percent, and where they contradict themselves.

    TABLES[2].rows["s_m_c"][TABLES[2].columns.index("VinDr ZS")]   # 82.7
    sums_that_do_not_add_up()                                      # [("Table 3", "R, M", 216.9, 215.9), ...]
    CONTRADICTIONS                                                 # the same and others, as sentences

Nothing in, numbers out. R is ResNet-50, S Swin-Tiny; M is MIMIC-CXR, C CheXpert, C14 ChestX-ray14; ZS is zero-shot, 10
and 100 are linear probes on that many percent. RSUM is the sum of a row's recalls.
"""

from typing import NamedTuple

ZERO_SHOT_OR_PROBE = ("ZS", "10", "100")
RECALLS = ("R@1", "R@5", "R@10")
ROUNDING = 0.05  # of each printed number
RSUM = "RSUM"


class PublishedTable(NamedTuple):
    """A table as printed.

    Attributes:
        title: what it shows.
        columns: its headings, a data set and what is measured on it.
        titles: of the rows, by what the programs call them.
        rows: as many numbers as columns.
    """

    title: str
    columns: tuple[str, ...]
    titles: dict[str, str]
    rows: dict[str, tuple[float, ...]]

    def recalls(self, row: str) -> list[float]:
        """What RSUM is the sum of."""
        return [value for name, value in zip(self.columns, self.rows[row], strict=True) if "R@" in name]


def _columns(*data_sets: str) -> tuple[str, ...]:
    return tuple(f"{name} {recall}" for name in data_sets for recall in RECALLS)


MODELS = {
    "gloria": "GLoRIA (C*)",
    "r_m": "R, M",
    "s_m": "S, M",
    "medclip": "MedCLIP (M,C)",
    "r_m_c": "R, M,C",
    "s_m_c": "S, M,C",
    "r_m_c_c14": "R, M,C,C14",
    "s_m_c_c14": "S, M,C,C14",
}
STEPS = {
    "vanilla": "vanilla CLIP",
    "study": "+ study-level sampling",
    "augmentations": "+ augmentations",
    "mvs": "+ MVS",
    "icl": "+ ICL",
    "tcl": "+ TCL",
    "declip_mvs_eda": "DeCLIP's MVS, EDA",
    "declip_mvs": "DeCLIP's MVS, our augmentation",
    "declip": "DeCLIP, our augmentation",
}
TABLES = {
    2: PublishedTable(
        "Zero-shot and linear probes: mean AUROC; accuracy on CheXpert5x200",
        (*(f"{name} {what}" for name in ("VinDr", "RSNA", "SIIM") for what in ZERO_SHOT_OR_PROBE), "C5x200 ACC"),
        MODELS,
        {
            "gloria": (78.0, 73.0, 73.1, 80.6, 88.2, 88.5, 84.0, 91.5, 91.9, 62.4),
            "r_m": (78.8, 82.1, 82.2, 83.3, 88.5, 89.2, 85.2, 88.3, 90.5, 56.2),
            "s_m": (78.3, 84.9, 85.4, 81.3, 88.0, 88.4, 85.5, 86.9, 88.3, 54.3),
            "medclip": (82.4, 84.9, 85.1, 81.9, 88.9, 89.0, 89.0, 90.4, 90.8, 59.2),
            "r_m_c": (83.0, 81.4, 82.1, 81.7, 88.5, 88.9, 86.4, 88.4, 90.7, 61.7),
            "s_m_c": (82.7, 86.1, 86.7, 84.5, 88.1, 88.8, 87.9, 89.6, 91.2, 60.1),
            "r_m_c_c14": (78.1, 80.2, 81.0, 81.8, 88.7, 89.3, 85.2, 91.5, 92.8, 60.3),
            "s_m_c_c14": (78.9, 88.0, 89.0, 80.1, 89.2, 89.8, 91.4, 92.9, 94.0, 62.8),
        },
    ),
    3: PublishedTable(
        "Retrieval, image to text",
        (*_columns("C5x200", "MIMIC", "Open-I"), RSUM),
        MODELS,
        {
            "gloria": (17.8, 38.8, 49.9, 7.2, 20.6, 30.3, 1.5, 4.4, 6.5, 177.0),
            "r_m": (9.4, 23.0, 32.6, 21.4, 46.0, 59.2, 3.8, 8.2, 12.3, 216.9),
            "s_m": (8.4, 21.5, 30.2, 21.6, 48.9, 60.2, 3.6, 8.3, 11.5, 214.2),
            "medclip": (2.6, 3.0, 3.6, 1.1, 1.4, 5.5, 0.1, 0.4, 0.7, 18.4),
            "r_m_c": (5.5, 19.2, 27.4, 20.2, 45.9, 58.2, 3.5, 8.2, 12.0, 200.1),
            "s_m_c": (8.5, 23.0, 31.6, 19.6, 44.2, 57.1, 3.1, 8.3, 11.6, 207.0),
            "r_m_c_c14": (5.7, 18.0, 28.3, 19.7, 44.4, 56.4, 2.3, 6.7, 10.1, 191.6),
            "s_m_c_c14": (7.0, 20.1, 29.7, 20.9, 46.2, 58.8, 2.4, 6.6, 9.4, 201.1),
        },
    ),
    4: PublishedTable(
        "What each step brings (ResNet-50, M,C; cumulative), and DeCLIP's",
        ("C5x200 ACC", *_columns("C5x200", "MIMIC"), RSUM),
        STEPS,
        {
            "vanilla": (58.9, 4.4, 14.4, 22.6, 17.3, 41.2, 52.6, 152.5),
            "study": (58.7, 4.6, 15.1, 23.2, 17.8, 42.5, 54.2, 157.4),
            "augmentations": (60.6, 5.7, 17.0, 24.9, 16.1, 40.2, 51.5, 155.4),
            "mvs": (61.2, 5.4, 17.1, 24.7, 16.3, 40.6, 53.3, 157.4),
            "icl": (61.6, 6.8, 20.3, 28.6, 17.5, 41.6, 53.2, 168.0),
            "tcl": (61.7, 6.2, 18.2, 29.1, 19.6, 44.8, 56.6, 174.5),
            "declip_mvs_eda": (59.5, 3.2, 15.5, 22.9, 15.8, 39.1, 51.5, 148.0),
            "declip_mvs": (59.4, 6.0, 17.0, 24.4, 15.1, 38.8, 51.8, 153.1),
            "declip": (59.4, 5.7, 16.1, 24.6, 18.1, 44.0, 55.3, 163.8),
        },
    ),
}


class WrongSum(NamedTuple):
    """An RSUM that its row's recalls do not give, even if each was rounded."""

    table: str
    row: str
    printed: float
    summed: float


def sums_that_do_not_add_up() -> list[WrongSum]:
    """All RSUMs that differ from the sum of their recalls by more than the rounding of all of them."""
    wrong = []
    for number in (3, 4):
        table = TABLES[number]
        for name, values in table.rows.items():
            recalls = table.recalls(name)
            if abs(values[-1] - sum(recalls)) > ROUNDING * (len(recalls) + 1) + 1e-9:
                wrong.append(WrongSum(f"Table {number}", table.titles[name], values[-1], round(sum(recalls), 1)))
    return wrong


# Checked against the tables above by tests. The appendix's last table has ZS and, of retrieval, the sum a data set.
CONTRADICTIONS = (
    "Table 3, R, M: the recalls sum up to 65.0 + 126.6 + 24.3 = 215.9, RSUM is 216.9. The appendix has 25.3 for "
    "Open-I, which gives 216.9: the three recalls of Open-I (3.8, 8.2, 12.3) are 1.0 too low together, or both sums "
    "are wrong. All other sums of Tables 3 and 4 add up.",
    "Table 4, + TCL, and Table 3, R, M,C, are one setting (ResNet-50, MIMIC-CXR and CheXpert, all losses), and the "
    "accuracy is the same (61.7); the recalls are 6.2, 18.2, 29.1 against 5.5, 19.2, 27.4 on CheXpert5x200 and 19.6, "
    "44.8, 56.6 against 20.2, 45.9, 58.2 on MIMIC-CXR (174.5 in all against 176.4).",
    "RSNA, zero-shot of R, M,C: 81.7 in Table 2, 85.0 in the appendix.",
    "CheXpert5x200, accuracy of R, M: 56.2 in Table 2, 54.0 in the appendix.",
    "Linear probes of the best model: 89.0, 89.8 and 94.0 (VinDr, RSNA, SIIM; S, M,C,C14 at 100 %) in Table 2, 89.3, "
    "89.6 and 90.2 under Linear in the appendix, which does not say how the two differ.",
)
