"""An answer as a Comprehensive 3D SR after TID 1500: findings with their boxes, diagnoses, doubts.

    structured_report(source, line).save_as("findings.SR.dcm")

    Imaging Measurement Report
      Imaging Measurements
        Measurement Group: Finding = Pneumothorax, Finding Site = Pleura, image region (a box of the radiograph),
                           Certainty of Finding = 87 %, the algorithm                          (TID 1410, 4019)
      Qualitative Evaluations
        Pneumonia = Present      "Pneumonia: probability 0.71"
        COPD = Absent            "COPD: probability 0.02"
        Comment                  "No finding: probability 0.03", warnings, what speaks against the checkpoint

Diagnoses stand in TID 1500's own container for what was seen without a region: a group without one crashes OHIF 3.13.
A report without any box is called Diagnostic Imaging Report: OHIF shows that as text, and of an Imaging Measurement
Report without measurements a black page.
Regions are SCOORD, since a radiograph has no frame of reference for SCOORD3D. A report is preliminary and
unverified; an answer that could not be understood says so, and that it names nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import highdicom as hd
import pydicom
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from litegpt import __version__
from litegpt.dicom_output.codes import (
    ABSENT,
    ARTIFICIAL_INTELLIGENCE,
    CERTAINTY,
    CLINICAL_FINDING,
    COMMENT,
    IMAGING,
    PERCENT,
    PRESENT,
    QUALITATIVE_EVALUATIONS,
    REPORT,
    REPORT_WITHOUT_BOXES,
    code_of_label,
    site_of_label,
)
from litegpt.dicom_output.result_series import frames_of, percent, rectangle, series_of
from litegpt.dicom_output.result_uids import asked_of, filed_malformed, hashed_uid
from litegpt.dicom_output.source_header import MAKER, NAME

NO_FINDING = "No finding"
PLACEHOLDER = {"xmin": 0, "ymin": 0, "xmax": 1, "ymax": 1}
DISCLAIMER = "Found by software and verified by nobody. Research software, not for diagnosis."


def structured_report(source: pydicom.Dataset, line: Mapping[str, Any]) -> pydicom.Dataset:
    """The report of one answer; `source` and `line` as `result_objects` takes them."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=hashed_uid(asked_of(line), "device"), name=NAME, manufacturer_name=MAKER, model_name=NAME
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    # highdicom makes no report without a group: one without findings loses this one again.
    findings = line["findings"] or [{"label": NO_FINDING, "score": None, "box": PLACEHOLDER}]
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=IMAGING.code,
        imaging_measurements=[_group(number, found, source, line) for number, found in enumerate(findings, start=1)],
        title=(REPORT if line["findings"] else REPORT_WITHOUT_BOXES).code,
    )
    report = hd.sr.Comprehensive3DSR(
        evidence=[source],
        content=content,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **series_of(source, line, "SR"),
    )
    items = [item for item in report.ContentSequence if line["findings"] or item.ValueType != "CONTAINER"]
    seen = _container(QUALITATIVE_EVALUATIONS.code, [*_diagnoses(line), *_comments(line)])
    report.ContentSequence = Items([*items, seen])  # highdicom's own sequence takes nothing that others have made
    return report


def _group(
    number: int, found: Mapping[str, Any], source: pydicom.Dataset, line: Mapping[str, Any]
) -> hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """One finding with its region (TID 1410); without a certainty where the answer has no score."""
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=rectangle(found["box"], source),
        source_image=hd.sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID, frames_of(source)),
    )
    certainty = []
    if found["score"] is not None:
        certainty = [hd.sr.Measurement(name=CERTAINTY.code, value=percent(found["score"]), unit=PERCENT.code)]
    site = site_of_label(found["label"])
    uid = hashed_uid(source.SOPInstanceUID, asked_of(line), "finding", str(number))
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid, f"{found['label']} {number}"),
        referenced_region=region,
        finding_category=CLINICAL_FINDING.code,
        finding_type=code_of_label(found["label"]),
        finding_sites=None if site is None else [hd.sr.FindingSite(anatomic_location=site)],
        measurements=certainty,
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=NAME,
            version=__version__,
            manufacturer=MAKER,
            family=ARTIFICIAL_INTELLIGENCE.code,
            parameters=[f"checkpoint={line['checkpoint']}"],
        ),
    )


def _diagnoses(line: Mapping[str, Any]) -> Iterator[pydicom.Dataset]:
    """Each diagnosis that the checkpoint was asked about, present or absent, and its probability in words."""
    named = {diagnosis["label"]: diagnosis["score"] for diagnosis in line["diagnoses"]}
    for label, probability in {**line["probabilities"].get("vqa", {}), **named}.items():
        if label == NO_FINDING:
            continue
        yield _code_item(code_of_label(label), PRESENT.code if label in named else ABSENT.code)
        if probability is not None:
            yield _comment(f"{label}: probability {probability:.2f}")


def _comments(line: Mapping[str, Any]) -> Iterator[pydicom.Dataset]:
    """What a person must know beside the findings."""
    malformed = filed_malformed(line)
    for task, reason in malformed.items():
        yield _comment(f"The answer to {task} was not understood and names nothing: {reason}")
    for task, probabilities in line["probabilities"].items():
        if NO_FINDING in probabilities:
            words = "any box" if task == "identify" else "any diagnosis"
            yield _comment(f"Without {words}: probability {probabilities[NO_FINDING]:.2f}")
    if not line["findings"] and not malformed:
        yield _comment("No finding is reported.")
    for warning in line.get("warnings", ()):
        yield _comment(f"Warning: {warning}")
    if line.get("caution"):
        yield _comment(f"Caution: {line['caution']}")
    yield _comment(f"{NAME} {__version__}, checkpoint {line['checkpoint']}. {DISCLAIMER}")


def _comment(text: str) -> pydicom.Dataset:
    return _item("TEXT", COMMENT.code, TextValue=text)


def _code_item(name: Code, value: Code) -> pydicom.Dataset:
    return _item("CODE", name, ConceptCodeSequence=[_coded(value)])


def _container(name: Code, content: list[pydicom.Dataset]) -> pydicom.Dataset:
    return _item("CONTAINER", name, ContinuityOfContent="SEPARATE", ContentSequence=content)


def _item(value_type: str, name: Code, **attributes: Any) -> pydicom.Dataset:
    """A content item (PS3.3, C.17.3); highdicom has no call for that container."""
    item = pydicom.Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [_coded(name)]
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _coded(code: Code) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
