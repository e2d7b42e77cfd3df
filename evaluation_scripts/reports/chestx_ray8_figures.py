"""ChestX-ray8's tables (arXiv 1705.02315) as printed, later works' figures, and what does not fit together.

    AUROC["ResNet-50, W-CEL"]["Cardiomegaly"]             # 0.8141
    TABLES[7].mean_accuracy("0.1")                        # 0.568
    entries_that_are_no_whole_numbers()                   # [NotWhole("Table 7", "0.7", "Effusion", "AFP", 1.009, ...)]
    SPLITS, CONTRADICTIONS                                # which figures may not stand side by side, as sentences

Nothing in, numbers out. Acc. is the share of a class's true boxes that are found, AFP false boxes an image, both above
a threshold of IoU or of IoBB (intersection over the detected box). CEL is cross entropy, W-CEL the same with positives
weighed up.
"""

from typing import NamedTuple

# Boxes that were released, by class; never two of one class in an image.
BOXES = {
    "Atelectasis": 180,
    "Cardiomegaly": 146,
    "Effusion": 153,
    "Infiltration": 123,
    "Mass": 85,
    "Nodule": 79,
    "Pneumonia": 120,
    "Pneumothorax": 98,
}
FINDINGS = tuple(BOXES)
OTHER_LABELS = ("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural thickening", "Hernia")  # ChestX-ray14's
NUM_BOXES, NUM_IMAGES = sum(BOXES.values()), 880


def _auroc(*values: float) -> dict[str, float]:
    return dict(zip((*FINDINGS, *OTHER_LABELS), values, strict=False))


# The last one was trained and tested on ChestX-ray14's official lists, the others on ChestX-ray8.
AUROC = {
    "AlexNet": _auroc(0.6458, 0.6925, 0.6642, 0.6041, 0.5644, 0.6487, 0.5493, 0.7425),
    "GoogLeNet": _auroc(0.6307, 0.7056, 0.6876, 0.6088, 0.5363, 0.5579, 0.5990, 0.7824),
    "VGG-16": _auroc(0.6281, 0.7084, 0.6502, 0.5896, 0.5103, 0.6556, 0.5100, 0.7516),
    "ResNet-50, CEL": _auroc(0.7064, 0.7262, 0.7351, 0.6084, 0.5530, 0.6545, 0.5164, 0.7665),
    "ResNet-50, W-CEL": _auroc(0.7069, 0.8141, 0.7362, 0.6128, 0.5609, 0.7164, 0.6333, 0.7891),
    "ChestX-ray14, official": _auroc(
        *(0.7003, 0.8100, 0.7585, 0.6614, 0.6933, 0.6687, 0.6580, 0.7993),
        *(0.7032, 0.8052, 0.8330, 0.7859, 0.6835, 0.8717),
    ),
}


class LocalizationTable(NamedTuple):
    """A table of the paper about boxes.

    Attributes:
        data: what the network was trained on.
        ratio: "iou" or "iobb", as metrics.json has it.
        accuracy: Acc. of FINDINGS by threshold.
        false_positives: AFP of FINDINGS by threshold.
    """

    data: str
    ratio: str
    accuracy: dict[str, tuple[float, ...]]
    false_positives: dict[str, tuple[float, ...]]

    def mean_accuracy(self, threshold: str) -> float:
        """Over the classes, each weighing the same; the paper prints no mean."""
        return sum(self.accuracy[threshold]) / len(FINDINGS)

    def counts(self, label: str) -> dict[str, tuple[int, int]]:
        """By threshold how many true boxes were found and how many detected boxes were false."""
        place = FINDINGS.index(label)
        return {
            threshold: (
                round(values[place] * BOXES[label]),
                round(self.false_positives[threshold][place] * NUM_BOXES),
            )
            for threshold, values in self.accuracy.items()
        }


TABLES = {
    4: LocalizationTable(
        "ChestX-ray8",
        "iobb",
        {
            "0.1": (0.7277, 0.9931, 0.7124, 0.7886, 0.4352, 0.1645, 0.7500, 0.4591),
            "0.25": (0.5500, 0.9794, 0.5424, 0.5772, 0.2823, 0.0506, 0.5583, 0.3469),
            "0.5": (0.2833, 0.8767, 0.3333, 0.4227, 0.1411, 0.0126, 0.3833, 0.1836),
            "0.75": (0.1666, 0.7260, 0.2418, 0.3252, 0.1176, 0.0126, 0.2583, 0.1020),
            "0.9": (0.1333, 0.6849, 0.2091, 0.2520, 0.0588, 0.0126, 0.2416, 0.0816),
        },
        {
            "0.1": (0.8323, 0.3506, 0.7998, 0.5589, 0.6423, 0.6047, 0.9055, 0.4776),
            "0.25": (0.9167, 0.4553, 0.8598, 0.6077, 0.6707, 0.6158, 0.9614, 0.5000),
            "0.5": (1.0203, 0.5630, 0.9268, 0.6585, 0.6941, 0.6189, 1.0132, 0.5285),
            "0.75": (1.0619, 0.6616, 0.9603, 0.6921, 0.7043, 0.6199, 1.0569, 0.5396),
            "0.9": (1.0752, 0.7226, 0.9797, 0.7124, 0.7144, 0.6199, 1.0732, 0.5437),
        },
    ),
    7: LocalizationTable(
        "ChestX-ray8",
        "iou",
        {
            "0.1": (0.6888, 0.9383, 0.6601, 0.7073, 0.4000, 0.1392, 0.6333, 0.3775),
            "0.2": (0.4722, 0.6849, 0.4509, 0.4796, 0.2588, 0.0506, 0.3500, 0.2346),
            "0.3": (0.2444, 0.4589, 0.3006, 0.2764, 0.1529, 0.0379, 0.1666, 0.1326),
            "0.4": (0.0944, 0.2808, 0.2026, 0.1219, 0.0705, 0.0126, 0.0750, 0.0714),
            "0.5": (0.0500, 0.1780, 0.1111, 0.0650, 0.0117, 0.0126, 0.0333, 0.0306),
            "0.6": (0.0222, 0.0753, 0.0457, 0.0243, 0, 0.0126, 0.0166, 0.0306),
            "0.7": (0.0055, 0.0273, 0.0196, 0, 0, 0, 0.0083, 0.0204),
        },
        {
            "0.1": (0.8943, 0.5996, 0.8343, 0.6250, 0.6666, 0.6077, 1.0203, 0.4949),
            "0.2": (0.9827, 0.7205, 0.9096, 0.6849, 0.6941, 0.6158, 1.0793, 0.5173),
            "0.3": (1.0417, 0.7815, 0.9472, 0.7236, 0.7073, 0.6168, 1.1067, 0.5325),
            "0.4": (1.0783, 0.8140, 0.9705, 0.7489, 0.7164, 0.6189, 1.1239, 0.5427),
            "0.5": (1.0884, 0.8354, 0.9919, 0.7571, 0.7215, 0.6189, 1.1291, 0.5478),
            "0.6": (1.0935, 0.8506, 1.0051, 0.7632, 0.7226, 0.6189, 1.1321, 0.5478),
            "0.7": (1.0965, 0.8577, 1.009, 0.7663, 0.7226, 0.6199, 1.1331, 0.5488),
        },
    ),
    19: LocalizationTable(
        "ChestX-ray14",
        "iobb",
        {
            "0.1": (0.6222, 1, 0.7974, 0.9106, 0.5882, 0.1519, 0.8583, 0.5204),
            "0.25": (0.3944, 0.9863, 0.6339, 0.7967, 0.4588, 0.0506, 0.7083, 0.3367),
            "0.5": (0.1944, 0.9452, 0.4183, 0.6504, 0.3058, 0, 0.4833, 0.2653),
            "0.75": (0.0889, 0.8151, 0.2287, 0.4390, 0.1647, 0, 0.2917, 0.1735),
            "0.9": (0.0722, 0.6507, 0.1373, 0.3577, 0.0941, 0, 0.2333, 0.1224),
        },
        {
            "0.1": (0.8293, 0.1768, 0.6148, 0.4919, 0.3933, 0.4685, 0.4360, 0.4543),
            "0.25": (0.9319, 0.2042, 0.6880, 0.5447, 0.4288, 0.4786, 0.4959, 0.4857),
            "0.5": (0.9979, 0.2785, 0.7652, 0.6006, 0.4604, 0.4827, 0.5630, 0.5030),
            "0.75": (1.0285, 0.4045, 0.8222, 0.6697, 0.4827, 0.4827, 0.6169, 0.5243),
            "0.9": (1.0356, 0.4837, 0.8445, 0.7043, 0.4939, 0.4827, 0.6331, 0.5346),
        },
    ),
}

IOU_OF_LATER = ("0.1", "0.2", "0.3", "0.4", "0.5")
IOBB_OF_LATER = ("0.1", "0.25", "0.5")


class GivenClass(NamedTuple):
    """Mean Acc. over the eight classes of a network trained on labels alone.

    Attributes:
        iou: at IOU_OF_LATER; empty where not reported.
        iobb: at IOBB_OF_LATER; empty where not reported.
        remark: how, and on which boxes.
        pointing_game: the share of true boxes that hold the hottest place of their class's map.
    """

    iou: tuple[float, ...]
    iobb: tuple[float, ...]
    remark: str
    pointing_game: float | None = None


QUOTED = "as CLARiTy's paper quotes it; tested on which boxes was not checked"
ONE_BOX = "all 880 boxed images, one box around the hottest 5 %, nothing tuned; one reproduction"
# Rows of the paper itself are made of its tables, the others are from tables of secondary sources.
GIVEN_CLASS = {
    "Wang 2017, ChestX-ray8": GivenClass(
        tuple(TABLES[7].mean_accuracy(threshold) for threshold in IOU_OF_LATER),
        tuple(TABLES[4].mean_accuracy(threshold) for threshold in IOBB_OF_LATER),
        "all 984 boxes, boxes at two thresholds; class not given: boxes only where the classifier calls it present",
    ),
    "Wang 2017, ChestX-ray14": GivenClass(
        (), tuple(TABLES[19].mean_accuracy(threshold) for threshold in IOBB_OF_LATER), "the same; IoU not reported"
    ),
    "CNN-ViT, Li 2022": GivenClass((0.64, 0.53, 0.40, 0.31, 0.24), (), QUOTED),
    "PCAN, 2022": GivenClass((0.78, 0.57, 0.36, 0.21, 0.10), (), QUOTED),
    "ThoraX-PriorNet, 2024": GivenClass((0.80, 0.63, 0.49, 0.33, 0.22), (), QUOTED),
    "CLARiTy ViT-S/16, 512 px, 2025": GivenClass(
        (0.81, 0.69, 0.59, 0.47, 0.32),
        (),
        "half of the boxed images, tuned on the boxes of the other half; with anatomical priors",
    ),
    "DenseNet-121, 512 px, Grad-CAM++": GivenClass(
        (0.62, 0.42, 0.28, 0.18, 0.10), (0.685, 0.550, 0.376), ONE_BOX, 0.54
    ),
    "DenseNet-121, 512 px, CAM": GivenClass((0.56, 0.36, 0.21, 0.12, 0.07), (0.607, 0.498, 0.336), ONE_BOX, 0.49),
    "random map": GivenClass((0.29, 0.17, 0.10, 0.05, 0.03), (0.371, 0.261, 0.131), ONE_BOX, 0.23),
}


class MeanAUROC(NamedTuple):
    """Mean AUROC of the 14 labels of ChestX-ray14, and the split that it was tested on."""

    model: str
    figure: str
    split: str


OFFICIAL, MRM_LISTS = "official", "random by patient, 78,468 / 11,219 / 22,433 images"
MEAN_AUROC = (
    MeanAUROC("Wang 2017, ResNet-50", ".745", OFFICIAL),
    MeanAUROC("DenseNet-121, 224 to 512 px", ".80 to .82", OFFICIAL),
    MeanAUROC("ViTs pre-trained on 0.5 million radiographs", ".830 to .834", OFFICIAL),
    MeanAUROC("CheXNet", ".841", "random by patient, 70 / 10 / 20 %"),
    MeanAUROC("MRM", ".859", MRM_LISTS),
    MeanAUROC("ECAMP", ".865", MRM_LISTS),
)


class NotWhole(NamedTuple):
    """An entry that no whole number of boxes gives."""

    table: str
    threshold: str
    label: str
    what: str
    printed: float
    count: float


def ways_to_write(printed: float, total: int) -> set[str]:
    """How a whole number over `total` can give a printed figure: "rounded" to four decimals, "cut" after them."""
    digits = round(10_000 * printed)
    ways = set()
    # Whole numbers throughout: a float would decide ties by its own rounding.
    for whole in (digits * total // 10_000, digits * total // 10_000 + 1):
        if 10_000 * whole // total == digits:
            ways.add("cut")
        if (20_000 * whole + total) // (2 * total) == digits:
            ways.add("rounded")
    return ways


def entries_that_are_no_whole_numbers() -> list[NotWhole]:
    """All Acc. that are none over their class's boxes, and all AFP that are none over 984."""
    found = []
    for number, table in TABLES.items():
        for what, rows in (("Acc.", table.accuracy), ("AFP", table.false_positives)):
            for threshold, values in rows.items():
                for label, printed in zip(FINDINGS, values, strict=True):
                    total = BOXES[label] if what == "Acc." else NUM_BOXES
                    if not ways_to_write(printed, total):
                        count = round(printed * total, 1)
                        found.append(NotWhole(f"Table {number}", threshold, label, what, printed, count))
    return found


def fewest_detections(number: int) -> dict[str, int]:
    """How many boxes of each class a table needs at least: at each threshold the false ones and one a box found.

    A detected box finds at most one true box, as an image has at most one of a class. Where none is found, all
    detected boxes are false, and their number is known.
    """
    return {label: max(map(sum, TABLES[number].counts(label).values())) for label in FINDINGS}


# Both are checked against the tables above by tests.
SPLITS = (
    "ChestX-ray8 itself (108,948 images of 32,717 patients, 3.3 each) was never released, and its random split is "
    "not said to be by patient. The paper's one AUROC row that a run on ChestX-ray14 can stand beside is the last "
    "one.",
    "The paper splits at random into 70 / 10 / 20 %; ChestX-ray14's official lists are 86,524 and 25,596 images: "
    "77.2 and 22.8 % of 112,120, without a validation list. They were not drawn at random either: test has 25,596 "
    "/ 2,797 = 9.2 images a patient, train 86,524 / 28,008 = 3.1. All boxes lie in test.",
    "Lists that are in wide use, 78,468 / 11,219 / 22,433 images (70.0 / 10.0 / 20.0 %), are a random split by "
    "patient with 3.6 images a patient in each part. MRM's (.859) and ECAMP's (.865) mean AUROC are of these, "
    "though ECAMP's paper calls them official; CheXNet's (.841) is of a random 70 / 10 / 20 %, too. They do not "
    "stand beside official figures, which come out lower (DenseNet-121: .841 in CheXNet, .80 to .82 on the "
    "official test).",
    "606 of the 880 boxed images (69 %) lie in the train list of that random split: a classifier trained on it was "
    "taught the labels of the images that its boxes are tested on. Localisation needs the official split.",
    "Li 2018 (arXiv 1711.06373) trains with the boxes of 80 % of the boxed images: no label-only figure. WSRPN "
    "(arXiv 2402.11985) trains without all patients of boxed images, tests on half of these, and its loc-acc "
    "counts true negatives, too: .55 and .51 at IoU .3 and .5 for this paper's method, whose Acc. is .221 and .062 "
    "(Table 7).",
    "Mean Acc. is over classes, not over boxes: at IoU .1 .568, against 607 of 984 = .617.",
)
CONTRADICTIONS = (
    "The text has 200 boxes a class, 1,600 in 983 images. Released were 180 + 146 + 153 + 123 + 85 + 79 + 120 + 98 "
    "= 984 in 880 images, and the tables are of these: all 136 Acc. are whole numbers over the class's released "
    "boxes (Atelectasis, IoBB .1: 131 of 180), only 15 over 200.",
    "AFP is said to be an image's average. 135 of 136 are whole numbers over 984, the number of boxes, only 21 "
    "over the 983 images of the text and 14 over the 880 released. So each box seems to be taken for an image. "
    "Whether what is false in an image with two boxes was counted once or twice is not said: if once, our AFP times "
    "880 / 984 = .894 compares.",
    "The one other AFP is Effusion's at IoU .7, 1.009: 992.9 of 984. It has three decimals: 993 / 984 = 1.00915.",
    "The fourth decimal is cut in the Acc. of Tables 4 and 7 (39 of 96 would be one higher if rounded: Mass, IoBB "
    ".1, 37 / 85 = .43529 is .4352). In Table 19 9 are rounded and 3 cut (Effusion, IoBB .25, 97 / 153 = .63399 is "
    ".6339), of all AFP 52 and 16; the others are the same either way.",
    "Nodule: Table 7 has 610 false boxes and none right at IoU .7 (.6199, 0), so 610 were detected. Table 4 has "
    "610 false ones beside one true box that is found at IoBB .75 and .9 (.6199, .0126): at least 611. One of them "
    "is wrong, or they are not of the same boxes.",
    "A heatmap is said to give 1 to 3 boxes. Table 7 has no box of Infiltration, Mass and Nodule found at IoU .7, "
    "so exactly 754, 711 and 610 were detected, all false: fewer than one a heatmap of 880 images. So boxes seem "
    "to be taken only where the classifier calls the class present; the cut-off is not given.",
    "Cardiomegaly: Table 7 needs 844 + 4 = 848 detected boxes at least (IoU .7). Table 4 has 345 false ones at "
    "IoBB .1, so at least 503 were right, for 145 true boxes found: 3.5 each, more than the 3 of the text. Table 4 "
    "alone gives 711 + 100 - 345 = 466 (IoBB .9), 3.2 each.",
)
