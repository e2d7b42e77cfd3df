"""The code of each label and of each word around it, in the coding schemes that PACS and viewers know; one table.

    code_of_label("Pneumothorax")        # Code("36118008", "SCT", "Pneumothorax")
    code_of_label("Cardiomegaly")        # Code("Cardiomegaly", "99LITEGPT", "Cardiomegaly"): nobody verified another

A wrong code in a patient's record is worse than none. So each has a source that says who verified it, and what nobody
verified is local: it has the label's own name, in the scheme 99LITEGPT, which each report declares. `SOURCES` says
what the sources are; tests hold every code of `DICOM` to pydicom's tables of PS3.16 and every SNOMED CT code to its
check digit (Verhoeff's). Someone with a SNOMED CT browser who wants to add a code adds a line.
"""

import hashlib
from typing import NamedTuple

from pydicom.sr.coding import Code

LOCAL_SCHEME = "99LITEGPT"
LOCAL_SCHEME_NAME = "LiteGPT labels without a verified standard code"
SHORT_STRING = 16  # characters of a code's value, PS3.5, table 6.2-1 (SH)
LONG_STRING = 64  # of its meaning (LO)

DICOM, RADLEX, EXPRESSION, RELEASE, GUIDES, TEMPLATE = "DICOM", "RadLex", "expression", "release", "guides", "template"
SOURCES = {
    DICOM: "PS3.16, as pydicom's tables have it",
    RADLEX: "a public table of chest findings whose authors resolved each identifier in BioPortal's RadLex",
    EXPRESSION: "a SNOMED CT expression that gives the code with its full name",
    RELEASE: "a published concept map whose codes were held against SNOMED CT's international release of July 2025",
    GUIDES: "published FHIR implementation guides, with the code's full name",
    TEMPLATE: "the definition of TID 1500 in PS3.16",
}


class Verified(NamedTuple):
    """A code and who verified that it means this."""

    value: str
    scheme: str
    meaning: str
    source: str

    @property
    def code(self) -> Code:
        return Code(self.value, self.scheme, self.meaning)


# Labels of VinDr-CXR that have a verified code. Left local, though codes are in use: Cardiomegaly (8186001 in public
# programs; RadLex has none; 287272002 of DICOM's CID 12248 is another thing in SNOMED CT), both fractures, and
# Nodule/Mass, for which Nodule and Mass each say too little.
LABELS = {
    "Atelectasis": Verified("46621007", "SCT", "Atelectasis", RELEASE),
    "Calcification": Verified("129748009", "SCT", "Radiographic calcification finding", DICOM),
    "Consolidation": Verified("95436008", "SCT", "Lung consolidation", GUIDES),
    "Edema": Verified("19242006", "SCT", "Pulmonary edema", DICOM),
    "Emphysema": Verified("87433001", "SCT", "Pulmonary emphysema", GUIDES),
    "ILD": Verified("233703007", "SCT", "Interstitial lung disease", GUIDES),
    "Infiltration": Verified("112121", "DCM", "Infiltrate", DICOM),
    "Lung Opacity": Verified("112001", "DCM", "Opacity", DICOM),
    "Pleural effusion": Verified("60046008", "SCT", "Pleural effusion", DICOM),
    "Pneumothorax": Verified("36118008", "SCT", "Pneumothorax", DICOM),
    "Pulmonary fibrosis": Verified("51615001", "SCT", "Fibrosis of lung", GUIDES),
    "COPD": Verified("13645005", "SCT", "Chronic obstructive lung disease", GUIDES),
    "Lung tumor": Verified("126713003", "SCT", "Neoplasm of lung", EXPRESSION),
    "Pneumonia": Verified("233604007", "SCT", "Pneumonia", GUIDES),
    "Tuberculosis": Verified("154283005", "SCT", "Pulmonary tuberculosis", GUIDES),
}
# Where a label's findings are: of local codes it says the more, and viewers show it beside the box.
AORTA = Verified("15825003", "SCT", "Aorta", DICOM)
CLAVICLE = Verified("51299004", "SCT", "Clavicle", DICOM)
HEART = Verified("80891009", "SCT", "Heart", DICOM)
LUNG = Verified("39607008", "SCT", "Lung", DICOM)
MEDIASTINUM = Verified("72410000", "SCT", "Mediastinum", DICOM)
PLEURA = Verified("3120008", "SCT", "Pleura", DICOM)
PULMONARY_ARTERY = Verified("81040000", "SCT", "Pulmonary artery", DICOM)
RIB = Verified("113197003", "SCT", "Rib", DICOM)
SITES = {
    "Aortic enlargement": AORTA,
    "Atelectasis": LUNG,
    "Cardiomegaly": HEART,
    "Clavicle fracture": CLAVICLE,
    "Consolidation": LUNG,
    "Edema": LUNG,
    "Emphysema": LUNG,
    "Enlarged PA": PULMONARY_ARTERY,
    "ILD": LUNG,
    "Infiltration": LUNG,
    "Lung Opacity": LUNG,
    "Lung cavity": LUNG,
    "Lung cyst": LUNG,
    "Lung tumor": LUNG,
    "Mediastinal shift": MEDIASTINUM,
    "Nodule/Mass": LUNG,
    "Pleural effusion": PLEURA,
    "Pleural thickening": PLEURA,
    "Pneumothorax": PLEURA,
    "Pulmonary fibrosis": LUNG,
    "Rib fracture": RIB,
}
# What stands around them.
CERTAINTY = Verified("111012", "DCM", "Certainty of Finding", DICOM)
PERCENT = Verified("%", "UCUM", "Percent", DICOM)
CLINICAL_FINDING = Verified("404684003", "SCT", "Finding", DICOM)
PRESENT = Verified("52101004", "SCT", "Present", DICOM)
ABSENT = Verified("272519000", "SCT", "Absent", DICOM)
COMMENT = Verified("121106", "DCM", "Comment", DICOM)
ARTIFICIAL_INTELLIGENCE = Verified("123110", "DCM", "Artificial Intelligence", DICOM)
REPORT = Verified("126000", "DCM", "Imaging Measurement Report", DICOM)
REPORT_WITHOUT_BOXES = Verified("18748-4", "LN", "Diagnostic Imaging Report", DICOM)
IMAGING = Verified("363679005", "SCT", "Imaging procedure", DICOM)  # CID 100 has none of the chest
QUALITATIVE_EVALUATIONS = Verified("C0034375", "UMLS", "Qualitative Evaluations", TEMPLATE)
AROUND = (
    CERTAINTY,
    PERCENT,
    CLINICAL_FINDING,
    PRESENT,
    ABSENT,
    COMMENT,
    ARTIFICIAL_INTELLIGENCE,
    REPORT,
    REPORT_WITHOUT_BOXES,
    IMAGING,
    QUALITATIVE_EVALUATIONS,
    *dict.fromkeys(SITES.values()),
)


def code_of_label(label: str) -> Code:
    """The label's verified code, or a local one that has its name."""
    return LABELS[label].code if label in LABELS else local_code(label)


def site_of_label(label: str) -> Code | None:
    """Where the label's findings are; None where they may be anywhere, as calcifications, or nobody knows."""
    return SITES[label].code if label in SITES else None


def local_code(label: str) -> Code:
    """A code of our own scheme: the label's letters and digits; of a long label as many as fit, and a digest."""
    value = "".join(character for character in label if character.isascii() and character.isalnum())
    if not value or len(value) > SHORT_STRING:
        value = value[:8] + hashlib.sha256(label.encode()).hexdigest()[:8]
    return Code(value, LOCAL_SCHEME, label[:LONG_STRING])
