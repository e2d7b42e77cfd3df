"""An answer as a secondary capture: the radiograph with boxes, names and words drawn on it, for any viewer.

    secondary_capture(source, line, overlay(radiograph, line)).save_as("overlay.SC.dcm")

It is a picture for people, in colour: its pixels are not the radiograph's, and its name says so.
"""

from collections.abc import Mapping
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import RLELossless

from litegpt.dicom_output.result_series import series_of


def secondary_capture(source: pydicom.Dataset, line: Mapping[str, Any], picture: Image.Image) -> pydicom.Dataset:
    """The picture of one answer, losslessly compressed.

    Args:
        source, line: as `result_objects` takes them.
        picture: with the answer drawn on it.
    """
    made = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=np.asarray(picture.convert("RGB")),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=list(source.get("PatientOrientation") or ("L", "F")),
        transfer_syntax_uid=RLELossless,
        **series_of(source, line, "SC"),
    )
    made.BurnedInAnnotation = "NO"  # of who the patient is: what is drawn are findings
    return made
