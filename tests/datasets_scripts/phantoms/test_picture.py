from collections import Counter

import numpy as np
import pytest

from litegpt.datasets_scripts.phantoms import picture as phantom_pictures
from litegpt.datasets_scripts.phantoms.findings import diagnoses_of, diagnosis_of
from litegpt.datasets_scripts.phantoms.picture import draw_findings, draw_phantom, sample_labels
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS


def test_every_label_has_one_drawing():
    assert sorted([*phantom_pictures.ANATOMY_CHANGES, *phantom_pictures.OVERLAYS]) == sorted(FINDING_LABELS)


@pytest.mark.parametrize("label", FINDING_LABELS)
def test_a_finding_is_seen_in_its_box(label):
    """The same chest with and without the finding: it changes its box, clearly, and little else."""
    for seed in range(4):
        normal = draw_phantom(np.random.default_rng(seed), 128, labels=())
        abnormal = draw_phantom(np.random.default_rng(seed), 128, labels=(label,))
        ((drawn, box),) = abnormal.findings
        assert drawn == label
        inside = np.zeros((128, 128), bool)
        left, top, right, bottom = (round(128 * edge) for edge in box)
        inside[top:bottom, left:right] = True
        change = np.abs(abnormal.pixels - normal.pixels)
        assert change[inside].mean() > 0.02
        assert change[inside].mean() > 10 * change[~inside].mean()
        assert np.percentile(change[inside], 95) > 0.1
        # What changes fills the box; part of a great vessel is hidden behind the mediastinum.
        rows, columns = (np.flatnonzero((change * inside > 0.03).any(axis)) for axis in (1, 0))
        assert (rows[-1] + 1 - rows[0]) / (bottom - top) > 0.7
        assert (columns[-1] + 1 - columns[0]) / (right - left) > 0.7


def test_the_smallest_findings_span_seven_hundredths_of_the_picture():
    for label in ("Nodule/Mass", "Calcification", "Lung cyst", "Rib fracture", "Clavicle fracture"):
        for seed in range(20):
            ((_, box),) = draw_phantom(np.random.default_rng(seed), 64, labels=(label,)).findings
            assert min(box[2] - box[0], box[3] - box[1]) >= 0.07


def test_labels_follow_the_papers_frequencies_with_a_floor():
    drawn = [sample_labels(np.random.default_rng(seed)) for seed in range(6000)]
    abnormal = [set(labels) for labels in drawn if labels]
    counts = Counter(label for labels in abnormal for label in labels)
    assert 0.31 < len(abnormal) / len(drawn) < 0.35
    assert set(counts) == set(FINDING_LABELS)
    assert min(counts.values()) > 18
    assert counts["Cardiomegaly"] > 6 * counts["Edema"]
    assert 1.8 < sum(counts.values()) / len(abnormal) < 2.1
    assert {len(labels) for labels in abnormal} == {1, 2, 3, 4}
    assert max(max(Counter(labels).values()) for labels in drawn if labels) == 2


def test_boxes_have_area_inside_the_picture():
    for seed in range(150):
        rng = np.random.default_rng(seed)
        labels = [str(label) for label in rng.choice(FINDING_LABELS, 4)]
        for _, (left, top, right, bottom) in draw_phantom(rng, 64, labels).findings:
            assert 0 <= left < right - 0.03 and right <= 1
            assert 0 <= top < bottom - 0.03 and bottom <= 1


def test_pixels_span_black_to_white_at_any_size():
    for size in (64, 97, (130, 64), (600, 700)):
        pixels = draw_phantom(np.random.default_rng(1), size).pixels
        assert pixels.shape == ((size, size) if isinstance(size, int) else size[::-1])
        assert pixels.dtype == np.float32
        assert (pixels.min(), pixels.max()) == (0, 1)


@pytest.mark.parametrize(
    ("size", "means", "samples"),
    [
        (256, [0.3964, 0.5464, 0.4989, 0.4944, 0.5979, 0.6486, 0.6497, 0.6436], [0.7435, 0.6657, 0.6314, 0.2607]),
        (
            (600, 700),
            [0.3969, 0.5467, 0.4989, 0.494, 0.5974, 0.6489, 0.6492, 0.6439],
            [0.1046, 0.6517, 0.0134, 0.6214],
        ),
    ],
)
def test_a_changed_drawing_needs_a_new_picture_version(size, means, samples):
    """Figures were measured on phantoms of this version. The samples see another grain, which the means do not."""
    pixels = draw_phantom(np.random.default_rng(11), size, ("ILD", "Pleural effusion", "Nodule/Mass")).pixels.ravel()
    assert phantom_pictures.PICTURE_VERSION == 3
    assert [part.mean() for part in np.array_split(pixels, 8)] == pytest.approx(means, abs=2e-4)
    assert pixels[[5000, 20000, 30000, 40000]] == pytest.approx(samples, abs=2e-4)


def test_findings_are_known_without_the_picture():
    for seed in range(12):
        for size in (96, (600, 700)):
            findings = draw_findings(np.random.default_rng(seed), size)
            assert findings == draw_phantom(np.random.default_rng(seed), size).findings


def test_diagnoses_follow_from_findings():
    upper, lower, large = (0.2, 0.2, 0.3, 0.3), (0.2, 0.6, 0.3, 0.7), (0.2, 0.6, 0.35, 0.75)
    expected = {
        ("Emphysema", lower): "COPD",
        ("Nodule/Mass", large): "Lung tumor",
        ("Nodule/Mass", lower): "Other diseases",
        ("Lung cavity", lower): "Tuberculosis",
        ("Pulmonary fibrosis", upper): "Tuberculosis",
        ("Pulmonary fibrosis", lower): "Other diseases",
        ("Infiltration", upper): "Tuberculosis",
        ("Infiltration", lower): "Pneumonia",
        ("Consolidation", upper): "Pneumonia",
        ("Cardiomegaly", large): "Other diseases",
    }
    assert {finding: diagnosis_of(*finding) for finding in expected} == expected
    assert set(expected.values()) | {"No finding"} == set(DIAGNOSIS_LABELS)
    assert diagnoses_of([]) == ["No finding"]
    assert diagnoses_of([("ILD", lower), ("Emphysema", lower), ("ILD", lower)]) == ["Other diseases", "COPD"]
