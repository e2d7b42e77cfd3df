"""A radiograph's tags and an answer about it, as `result_objects` takes them."""

from io import BytesIO
from typing import Any

import numpy as np
import pydicom

from tests.small_dicom import small_dicom

ROWS, COLUMNS = 120, 100


def radiograph_file(**tags: Any) -> bytes:
    """A DICOM file with made-up UIDs and a patient; `tags` beside them, None takes one away."""
    dataset = small_dicom(np.full((ROWS, COLUMNS), 90, dtype=np.uint8))
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3.4", "1.2.3", "1.2"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "WARD", "17", "19400305"
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    file = BytesIO()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.1.1")
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def answer(**changes: Any) -> dict[str, Any]:
    """A line of the predictions."""
    line = {
        "findings": [
            {"label": "Cardiomegaly", "score": 0.875, "box": {"xmin": 30, "ymin": 50, "xmax": 75, "ymax": 95}},
            {"label": "Pneumothorax", "score": None, "box": {"xmin": -4, "ymin": 10, "xmax": 200, "ymax": 40}},
        ],
        "diagnoses": [{"label": "Pneumonia", "score": 0.71}],
        "probabilities": {
            "identify": {"No finding": 0.01},
            "vqa": {"COPD": 0.02, "Pneumonia": 0.71, "No finding": 0.1},
        },
        "malformed": {"identify": None, "vqa": None},
        "warnings": ["its ViewPosition is LL, not PA or AP"],
        "caution": "trained on synthetic radiographs",
        "checkpoint": "demo/checkpoint",
        "checkpoint_sha256": "ab12",
        "constrained": True,
        "threshold": None,
        "with_candidates": False,
        "views": 0,
    }
    return line | changes
