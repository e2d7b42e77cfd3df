import datasets
import numpy as np
import pytest

from litegpt.evaluation_scripts.retrieval import has_reports, longer_section, retrieval_figures, study_pairs
from litegpt.metrics.ranks import retrieval_scores


def rows(**columns) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


def test_a_study_is_its_first_frontal_radiograph_and_its_longer_section():
    pairs = study_pairs(
        rows(
            study_id=["s1", "s2", "s1", "s1", "", ""],
            view=["Lateral", "PA", "AP", "PA", "", "LL"],
            report_findings=["Clear lungs.", None, "Clear lungs.", "Clear lungs.", "XXXX", "Fracture."],
            report_impression=["Normal.", "Edema, XXXX.", "Normal.", "Normal.", "", None],
        )
    )
    # s1: row 2, its first frontal one; the two without a name are studies of their own, one has no words.
    assert pairs.indices.tolist() == [2, 1, 5] and pairs.without_text == 1
    assert pairs.texts == ["Clear lungs.", "Edema.", "Fracture."]


def test_the_longer_section_is_measured_without_masks():
    row = {"report_findings": "XXXX XXXX XXXX XXXX clear.", "report_impression": "No acute disease."}
    assert longer_section(row) == "No acute disease."
    assert longer_section({"report_findings": None}) == ""


def test_rows_without_reports_are_known():
    assert has_reports(rows(report_impression=[""])) and not has_reports(rows(image_id=["a"]))


def drawn(count: int = 60) -> tuple[np.ndarray, list[str]]:
    return np.random.default_rng(0).normal(size=(count, 32)), [f"text {number}" for number in range(count)]


def test_a_perfect_model_is_always_first_and_shuffled_pairs_are_at_chance():
    vectors, texts = drawn()
    found = retrieval_figures(vectors, vectors, texts)
    for direction in ("image_to_text", "text_to_image"):
        assert found["figures"][direction] == {"recall_at_1": 1, "recall_at_5": 1, "recall_at_10": 1, "mean_rank": 1}
        assert found["chance"][direction]["mean_rank"] == 30.5
        assert found["figures"]["shuffled"][direction]["mean_rank"] == pytest.approx(30.5, abs=8)
        assert found["intervals"]["less_shuffled"][direction]["mean_rank"][1] < -15
    assert found["studies"] == found["texts"] == 60 and found["new_texts"] is None


def test_figures_by_hand_with_equal_texts():
    """Image 2 has the text of image 0; image 1 is nearer to that text than to its own."""
    images = np.array([[1.0, 0], [0.8, 0.6], [0.6, 0.8]])
    texts = np.array([[1.0, 0], [0.0, 1], [1.0, 0]])
    found = retrieval_figures(images, texts, ["a", "b", "a"])
    assert found["texts"] == 2
    assert found["figures"]["image_to_text"]["recall_at_1"] == pytest.approx(1 / 3)  # image 0 alone
    assert found["figures"]["image_to_text"]["mean_rank"] == pytest.approx(5 / 3)
    # Text a finds image 0 first; text b has image 2 before its own: two queries, ranks 1 and 2.
    assert found["figures"]["text_to_image"]["mean_rank"] == pytest.approx(1.5)


def test_texts_of_training_are_no_proof():
    vectors, texts = drawn()
    image_vectors = vectors.copy()
    image_vectors[30:] = np.roll(image_vectors[30:], 1, axis=0)  # what is not of training is confused
    found = retrieval_figures(image_vectors, vectors, texts, training_texts=set(texts[:30]))
    assert found["new_texts"]["studies"] == found["new_texts"]["texts"] == 30
    assert found["new_texts"]["chance"]["mean_rank"] == 15.5
    assert found["figures"]["image_to_text"]["recall_at_1"] == 0.5
    assert found["new_texts"]["figures"]["recall_at_1"] == 0
    assert retrieval_figures(vectors, vectors, texts, set(texts))["new_texts"] is None


def test_patients_are_drawn_together_also_among_new_texts():
    vectors, texts = drawn()
    noisy = vectors + 4 * np.random.default_rng(1).normal(size=vectors.shape)
    patients = np.arange(60) // 15
    alone = retrieval_figures(noisy, vectors, texts, set(texts[:15]))
    together = retrieval_figures(noisy, vectors, texts, set(texts[:15]), patients)
    assert alone["figures"] == together["figures"] and alone["intervals"] != together["intervals"]
    assert alone["new_texts"]["intervals"] != together["new_texts"]["intervals"]


def test_training_can_call_for_the_figures_alone():
    vectors, texts = drawn()
    assert retrieval_scores(vectors, vectors, texts)["image_to_text"]["mean_rank"] == 1
