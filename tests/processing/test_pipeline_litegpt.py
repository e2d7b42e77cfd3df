import copy
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import BitsAndBytesConfig, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing import pipeline_litegpt
from litegpt.processing.answer_maps import text_maps
from litegpt.processing.answers import text_to_findings
from litegpt.processing.box_scores import Answer, BoxProbabilities, box_probabilities, box_score, calibrated
from litegpt.processing.constrained_decoding import ConstrainedGreedyOutput
from litegpt.processing.moved_views import MovedView
from litegpt.processing.pipeline_litegpt import (
    KEPT,
    ChestXrayFindingsPipeline,
    GreedyTokenProbabilities,
    Shown,
    _decode,
    structured_answers,
)
from tests.processing.chest_picture import chest
from tests.small_dicom import small_dicom
from tests.stranger import NOTHING_OF_OURS

FINDINGS = (
    "Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<38><52><81><74>},<p>ILD</p> {<0><10><50><90>}."
)
DIAGNOSES = "Global diseases of this chest radiograph are Pneumonia, COPD."
NO_FINDING = {"No finding": 0.2}


class Recited(ChestXrayFindingsPipeline):
    """The pipeline with a model that recites given answers, each token with a probability of its own."""

    def recite(self, answers: dict[str, str], label_probabilities: dict[str, dict[str, float]]) -> "Recited":
        self.answers, self.label_probabilities = answers, label_probabilities
        return self

    def _forward(self, inputs, max_new_tokens=512):
        tokens = self.tokenizer(self.answers[inputs["task"]], add_special_tokens=False)["input_ids"]
        return {
            **{name: inputs[name] for name in KEPT},
            "new_tokens": torch.tensor([tokens + [self.tokenizer.eos_token_id]]),
            "token_probabilities": torch.tensor([[0.5 + 0.01 * index for index in range(len(tokens) + 1)]]),
            "candidates": torch.tensor([[[token] for token in [*tokens, self.tokenizer.eos_token_id]]]),
            "candidate_probabilities": torch.ones(1, len(tokens) + 1, 1),
            "label_probabilities": [self.label_probabilities[inputs["task"]]],
        }


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def reciter(loaded) -> Recited:
    return Recited(model=loaded[0], processor=loaded[1])


@pytest.fixture
def recited(reciter) -> Recited:
    marginals = {"Pneumonia": 0.7, "COPD": 0.6, "Tuberculosis": 0.1}
    return reciter.recite({"identify": FINDINGS, "vqa": DIAGNOSES}, {"identify": NO_FINDING, "vqa": marginals})


@pytest.fixture
def calibrated_reciter(loaded) -> Recited:
    processor = copy.copy(loaded[1])
    processor.score_temperatures = {"finding": 2.0, "diagnosis": 0.5}
    processor.score_thresholds = {"Cardiomegaly": 0.1, "ILD": 0.99}
    pipe = Recited(model=loaded[0], processor=processor)
    marginals = {"Pneumonia": 0.7, "COPD": 0.6, "Tuberculosis": 0.1}
    return pipe.recite({"identify": FINDINGS, "vqa": DIAGNOSES}, {"identify": NO_FINDING, "vqa": marginals})


def test_boxes_are_in_pixels_of_the_radiograph_as_given(recited):
    result = recited(Image.new("L", (200, 1000)))
    assert [(finding["label"], finding["box"]) for finding in result["findings"]] == [
        ("Cardiomegaly", {"xmin": 76, "ymin": 520, "xmax": 162, "ymax": 740}),
        ("ILD", {"xmin": 0, "ymin": 100, "xmax": 100, "ymax": 900}),
    ]
    assert [diagnosis["label"] for diagnosis in result["diagnoses"]] == ["Pneumonia", "COPD"]
    assert result["answers"] == {"identify": FINDINGS, "vqa": DIAGNOSES}
    assert result["malformed"] == {"identify": None, "vqa": None}


def test_doubts_travel_with_the_answer_and_a_radiograph_stored_mirrored_has_its_own_boxes(recited):
    dataset = small_dicom(np.ascontiguousarray(chest()[:, ::-1]))  # 240 x 300
    dataset.PatientOrientation, dataset.BodyPartExamined = ["R", "F"], "KNEE"
    with pytest.warns(UserWarning):
        result, ordinary = recited([dataset, chest()])
    part, stored = result["warnings"]
    assert part == "its BodyPartExamined is KNEE, not the chest"
    assert stored.startswith("it is stored mirrored (PatientOrientation R/F): it is turned to the standard view")
    assert ordinary["warnings"] == []
    upright, mirrored = ordinary["findings"][0]["box"], result["findings"][0]["box"]
    assert upright == {"xmin": 91, "ymin": 156, "xmax": 194, "ymax": 222}
    assert mirrored == {"xmin": 240 - 194, "ymin": 156, "xmax": 240 - 91, "ymax": 222}


def test_the_real_pipeline_gives_doubts_in_batches_too(loaded):
    black = np.zeros((90, 80), np.uint8)
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    for batch_size in (1, 2):
        with pytest.warns(UserWarning, match="shows next to nothing"):
            results = pipe([black, chest(), black], batch_size=batch_size, max_new_tokens=64)
        assert [len(result["warnings"]) for result in results] == [1, 0, 1]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_candidates_and_views_stand_beside_the_same_answers(loaded, radiographs, batch_size):
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    options = {"max_new_tokens": 64, "candidates": 0.02, "views": 2, "relative_boxes": True}
    plain = [pipe(picture, max_new_tokens=64) for picture in radiographs]
    alone = [pipe(picture, **options) for picture in radiographs]
    together = pipe(radiographs, **options, batch_size=batch_size)
    rows = Dataset.from_dict({"image": radiographs}, features=Features({"image": ImageFeature()}))
    of_rows = list(pipe(KeyDataset(rows, "image"), **options, batch_size=batch_size))
    assert [one["view_findings"] for one in of_rows] == [one["view_findings"] for one in together]
    for before, one, other in zip(plain, alone, together, strict=True):
        assert "candidates" not in before and "view_findings" not in before
        assert one["answers"] == before["answers"]
        assert one["candidates"] and one["view_findings"]
        for name in ("findings", "candidates", "view_findings"):
            assert [item["label"] for item in one[name]] == [item["label"] for item in other[name]]
            for item, same in zip(one[name], other[name], strict=True):
                assert item["box"] == pytest.approx(same["box"], abs=1e-3)  # pixels may be rounded the other way
                assert item["score"] == pytest.approx(same["score"], abs=1e-5)
        named = {item["label"] for item in one["findings"]}
        assert {item["views"] for item in one["view_findings"]} <= {1, 2, 3}
        assert {item["label"] for item in one["candidates"]} - named  # labels that the answer does not name


def test_views_that_are_moved_by_nothing_change_nothing(loaded, radiographs, monkeypatch):
    monkeypatch.setattr(pipeline_litegpt, "moved_views", lambda number: [MovedView()] * number)
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    result = pipe(radiographs[0], max_new_tokens=64, candidates=0.02, views=3, relative_boxes=True)
    expected = sorted([*result["findings"], *result["candidates"]], key=lambda item: -item["score"])
    # Boxes of a label that overlap a little (IoU .4 to .5) stay two in an answer, and are one in views.
    found = {(item["label"], round(item["score"], 4)) for item in result["view_findings"]}
    assert found <= {(item["label"], round(item["score"], 4)) for item in expected}
    assert {item["label"] for item in result["view_findings"]} == {item["label"] for item in expected}
    assert {item["views"] for item in result["view_findings"]} == {4}


def test_beside_a_detector_views_stand_in_the_answer_s_place_and_maps_are_of_the_radiograph(
    detector_checkpoint, radiographs
):
    model, processor = load_checkpoint(detector_checkpoint)
    pipe = ChestXrayFindingsPipeline(model=model, processor=processor)
    plain = pipe(radiographs[0], max_new_tokens=64)
    result = pipe(radiographs[0], max_new_tokens=64, candidates=0.02, views=2, explain="gradient_attention")
    assert result["answers"] == plain["answers"]
    both = ([(item["label"], item["box"]) for item in one["detected_findings"]] for one in (plain, result))
    assert next(both) == next(both)
    said = {who for finding in result["fused_findings"] for who in finding["source"]}
    assert said == {"view", "detector"}
    assert all(finding["map"].ndim == 2 for finding in result["findings"])


def test_at_the_operating_point_candidates_that_reach_it_are_findings(loaded, radiographs):
    model, processor = loaded
    found = ChestXrayFindingsPipeline(model=model, processor=processor)(
        radiographs[0], max_new_tokens=64, candidates=0.02
    )
    best = found["candidates"][0]
    at_point = copy.copy(processor)
    at_point.score_thresholds = dict.fromkeys(processor.finding_labels, 0.0)
    pipe = ChestXrayFindingsPipeline(model=model, processor=at_point)
    with pytest.raises(ValueError, match="no operating points .candidate_thresholds."):
        pipe(radiographs[0], candidates=True, threshold="operating_point")
    with pytest.raises(ValueError, match="no operating points .view_thresholds."):
        ChestXrayFindingsPipeline(model=model, processor=at_point, views=1)(
            radiographs[0], threshold="operating_point"
        )
    at_point.candidate_thresholds = dict.fromkeys(processor.finding_labels, best["score"] - 1e-6)
    result = pipe(radiographs[0], max_new_tokens=64, candidates=0.02, threshold="operating_point")
    taken = [item for item in result["findings"] if item["source"] == ["candidate"]]
    assert {**best, "source": ["candidate"]} in taken
    assert [item for item in found["candidates"] if {**item, "source": ["candidate"]} not in taken] == result[
        "candidates"
    ]


def test_candidates_of_answers_that_are_not_constrained_are_refused(loaded, radiographs):
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    with pytest.raises(ValueError, match="constrained=False has none"):
        pipe(radiographs[0], constrained=False, candidates=True)


def test_boxes_are_as_written_where_they_are_wanted_so(recited):
    box = recited(Image.new("L", (100, 100)), written_boxes=True)["findings"][0]["box"]
    assert box == {"xmin": 38, "ymin": 52, "xmax": 81, "ymax": 74}


def test_a_box_has_the_probabilities_of_its_entry_its_label_and_every_value_of_its_coordinates():
    tokens = ["Local diseases of this chest radiograph are ", "<p>", "Cardio", "megaly", "</p> {<"]
    values = [1.0, 0.9, 0.8, 0.7, 1.0]
    for token, value in (("3", 0.6), ("8", 0.5), ("><", 1.0), ("52", 0.4), ("><", 1.0), ("81", 0.3), ("><", 1.0)):
        tokens, values = [*tokens, token], [*values, value]
    tokens += ["74", ">},", "<p>", "ILD</p> {", "<0>", "<10>", "<50>", "<90>", "}."]
    values += [0.2, 0.55, *[0.95] * 7]
    considered = {number: {token: values[number]} for number, token in enumerate(tokens)}
    considered[5] = {"3": 0.6, "4": 0.3, "7": 0.1}
    considered[6] = {"8": 0.5, "9": 0.25, "1": 0.25}
    considered[16] = {"<0>": 0.95, "<1>": 0.04, "<10>": 0.01}
    starts = np.cumsum([0, *map(len, tokens[:-1])]).tolist()
    answer = Answer("".join(tokens), starts, values, considered=considered)
    assert answer.text == FINDINGS
    first, second = box_probabilities(text_to_findings(FINDINGS, ["Cardiomegaly", "ILD"]), answer)
    assert first.entry == pytest.approx(0.9)
    assert first.label == pytest.approx(0.8 * 0.7)
    assert second.entry == pytest.approx(0.55 * 0.95)  # that a comma follows, no full stop
    x1 = first.coordinates[0]
    assert (x1[38], x1[39], x1[31]) == pytest.approx((0.6 * 0.5, 0.6 * 0.25, 0.6 * 0.25))
    # Nothing is known of what would have followed a 4 or a 7: 4 and 40 to 49, 7 and 70 to 79.
    assert (x1[4], x1[45], x1[70]) == pytest.approx((0.3 / 11, 0.3 / 11, 0.1 / 11))
    assert x1.sum() == pytest.approx(1)
    assert second.coordinates[0][[0, 1, 10, 11]] == pytest.approx([0.95, 0.04, 0.01, 0])


def test_a_box_score_is_the_probability_that_the_model_gives_a_box_near_it():
    box = (0.2, 0.2, 0.6, 0.6)
    coordinates = np.zeros((4, 101))
    coordinates[[0, 1, 2, 3], [20, 20, 60, 60]] = 1
    assert box_score(box, BoxProbabilities(0.9, 0.8, coordinates)) == pytest.approx(0.72)
    near, far, nothing = (coordinates.copy() for _ in range(3))
    near[0, [20, 21]] = 0.5  # an IoU of 0.97
    far[0, [20, 55]] = 0.25, 0.75  # an IoU of 0.125
    nothing[0, 20] = 0.25  # the rest on tokens that are no coordinates
    assert box_score(box, BoxProbabilities(0.9, 0.8, near)) == pytest.approx(0.72)
    assert box_score(box, BoxProbabilities(0.9, 0.8, far)) == pytest.approx(0.18, abs=0.02)
    assert box_score(box, BoxProbabilities(0.9, 0.8, nothing)) == pytest.approx(0.18, abs=0.02)


def test_scores_come_from_the_answer_s_tokens_and_the_marginals(recited):
    result = recited(Image.new("L", (100, 100)))
    tokens = recited.tokenizer.tokenize(FINDINGS)
    entry, label, x1 = (0.5 + 0.01 * tokens.index(token) for token in ("<p>", "Cardiomegaly", "<38>"))
    # The rest of the probability lies on no coordinate, so all four must be drawn as written.
    written = math.prod(x1 + 0.01 * side for side in range(4))
    assert result["findings"][0]["score"] == pytest.approx(entry * label * written, rel=0.2)
    assert [diagnosis["score"] for diagnosis in result["diagnoses"]] == pytest.approx([0.7, 0.6])
    assert result["probabilities"]["identify"] == pytest.approx(NO_FINDING)
    assert result["probabilities"]["vqa"] == pytest.approx({"Pneumonia": 0.7, "COPD": 0.6, "Tuberculosis": 0.1})


def test_without_marginals_a_diagnosis_has_the_probability_of_its_tokens(recited):
    recited.label_probabilities = {"identify": {}, "vqa": {}}
    result = recited(Image.new("L", (100, 100)))
    # A token of its own: the second one of the answer, behind the opening words.
    assert result["diagnoses"][0]["score"] == pytest.approx(0.51)
    assert result["probabilities"] == {"identify": {}, "vqa": {}}


def test_answers_of_a_server_without_probabilities_have_no_scores(loaded):
    result = structured_answers(
        {"identify": Answer(FINDINGS, [], []), "vqa": Answer(DIAGNOSES, [], [])}, Shown((9, 9)), loaded[1]
    )
    assert [item["score"] for item in result["findings"] + result["diagnoses"]] == [None] * 4


def test_scores_and_probabilities_are_calibrated_with_the_checkpoint_s_temperatures(recited, calibrated_reciter):
    picture = Image.new("L", (100, 100))
    plain, result = recited(picture), calibrated_reciter(picture)
    for before, after in zip(plain["findings"], result["findings"], strict=True):
        assert after["score"] == pytest.approx(calibrated(before["score"], 2.0)) != pytest.approx(before["score"])
    assert result["diagnoses"][0]["score"] == pytest.approx(calibrated(0.7, 0.5))
    assert result["probabilities"]["identify"]["No finding"] == 0.2  # no box's score
    assert result["probabilities"]["vqa"]["Tuberculosis"] == pytest.approx(calibrated(0.1, 0.5))


def test_calibrated_is_the_sigmoid_of_the_scaled_logit_and_keeps_certainty():
    for p, temperature in ((0.2, 2.0), (0.9, 0.3), (1e-9, 3.0)):
        expected = 1 / (1 + math.exp(-math.log(p / (1 - p)) / temperature))
        assert calibrated(p, temperature) == pytest.approx(expected)
        assert calibrated(calibrated(p, temperature), 1 / temperature) == pytest.approx(p)
    assert [calibrated(p, 3.0) for p in (0.0, 1.0)] == [0.0, 1.0]
    np.testing.assert_allclose(calibrated(np.array([0.2, 0.5]), 1.0), [0.2, 0.5])


def test_a_threshold_leaves_out_findings_with_a_smaller_score(recited, calibrated_reciter):
    picture = Image.new("L", (100, 100))
    first, second = (finding["score"] for finding in recited(picture)["findings"])
    assert first < second
    labels = {t: [f["label"] for f in recited(picture, threshold=t)["findings"]] for t in (first, second, 1.0)}
    assert labels == {first: ["Cardiomegaly", "ILD"], second: ["ILD"], 1.0: []}
    assert recited(picture, threshold=1.0)["answers"]["identify"] == FINDINGS  # what the model wrote stays
    own = calibrated_reciter(picture, threshold="operating_point")["findings"]
    assert [finding["label"] for finding in own] == ["Cardiomegaly"]
    assert len(calibrated_reciter(picture)["findings"]) == 2


def test_thresholds_that_do_not_exist_are_refused(recited):
    with pytest.raises(ValueError, match="no operating points"):
        recited(Image.new("L", (9, 9)), threshold="operating_point")
    with pytest.raises(ValueError, match="a number or 'operating_point', not 'high'"):
        recited(Image.new("L", (9, 9)), threshold="high")


def test_a_malformed_answer_keeps_its_text_and_reason_and_does_not_touch_the_other(recited):
    recited.answers = {"identify": FINDINGS[:-4], "vqa": DIAGNOSES}
    result = recited(Image.new("L", (100, 100)))
    assert result["findings"] == [] and len(result["diagnoses"]) == 2
    assert "full stop" in result["malformed"]["identify"]
    assert result["answers"]["identify"] == FINDINGS[:-4]


def test_tokens_are_located_as_decoding_longer_and_longer_beginnings_does(loaded):
    tokenizer = loaded[1].tokenizer
    for text in (FINDINGS, DIAGNOSES, " Ærø <p>", "[vqa] {<12>"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        found, starts = _decode(tokenizer, [*tokens, tokenizer.eos_token_id, tokens[0]])
        beginnings = [tokenizer.decode(tokens[:count], skip_special_tokens=True) for count in range(len(tokens) + 1)]
        assert found == beginnings[-1]
        for start, beginning in zip(starts, beginnings, strict=False):
            if "\N{REPLACEMENT CHARACTER}" not in beginning:  # it ends within the bytes of a character
                assert start == len(beginning)


def test_constrained_answers_of_an_untrained_model_are_never_malformed_plain_ones_are(loaded, radiographs):
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    constrained = pipe(radiographs, batch_size=4, max_new_tokens=60)
    assert all(result["malformed"] == {"identify": None, "vqa": None} for result in constrained)
    labels = set(loaded[1].diagnosis_labels)
    for result in constrained:
        assert (
            set(result["probabilities"]["identify"]) == {"No finding"}
            and set(result["probabilities"]["vqa"]) == labels
        )
        for diagnosis in result["diagnoses"]:
            assert diagnosis["score"] == result["probabilities"]["vqa"][diagnosis["label"]]
        assert all(0 < finding["score"] < 1 for finding in result["findings"])
    plain = pipe(radiographs, batch_size=4, max_new_tokens=12, constrained=False)
    assert all(all(result["malformed"].values()) for result in plain)
    assert plain[0]["probabilities"] == {"identify": {}, "vqa": {}}


@pytest.mark.parametrize("constrained", [True, False])
def test_a_batch_gives_what_single_radiographs_give(loaded, radiographs, constrained):
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1], constrained=constrained)
    single = [pipe(radiograph, max_new_tokens=40) for radiograph in radiographs]
    batch = pipe(radiographs, batch_size=4, max_new_tokens=40)
    assert [result["answers"] for result in batch] == [result["answers"] for result in single]
    assert len({str(result) for result in single}) > 1
    for alone, together in zip(single, batch, strict=True):
        for key in ("findings", "diagnoses"):
            scores = [item["score"] for item in together[key]]
            assert scores == pytest.approx([item["score"] for item in alone[key]], rel=1e-4)
        for task, probabilities in alone["probabilities"].items():
            assert together["probabilities"][task] == pytest.approx(probabilities, rel=1e-4, abs=1e-6)


def test_without_the_constraint_the_answer_is_that_of_plain_greedy_generate(loaded, radiographs):
    model, processor = loaded
    pipe = ChestXrayFindingsPipeline(model=model, processor=processor, constrained=False)
    inputs = processor(
        images=radiographs[0], text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt"
    )
    sequence = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    answer = pipe(radiographs[0], tasks=["vqa"], max_new_tokens=8)["answers"]["vqa"]
    assert answer == processor.tokenizer.decode(sequence, skip_special_tokens=True)


def test_the_longest_answer_may_be_given_once_for_all(loaded, radiographs):
    options = {"model": loaded[0], "processor": loaded[1], "constrained": False, "tasks": ["vqa"]}
    short, long = (ChestXrayFindingsPipeline(**options)(radiographs[0], max_new_tokens=n) for n in (2, 12))
    pipe = ChestXrayFindingsPipeline(**options, max_new_tokens=2)
    assert pipe(radiographs[0]) == short != long
    assert pipe(radiographs[0], max_new_tokens=12) == long


def test_only_the_asked_tasks_are_answered(loaded, radiographs):
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    assert set(pipe(radiographs[0], tasks=["vqa"], max_new_tokens=40)["answers"]) == {"vqa"}


def test_recorded_probabilities_are_those_of_the_greedy_tokens(loaded, radiographs):
    model, processor = loaded
    inputs = processor(
        images=radiographs[0], text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt"
    )
    recorder = GreedyTokenProbabilities()
    output = model.generate(
        **inputs,
        max_new_tokens=6,
        do_sample=False,
        logits_processor=[recorder],
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[0, inputs["input_ids"].shape[1] :]
    expected = [logits.softmax(-1)[0, token] for logits, token in zip(output.logits, tokens, strict=True)]
    torch.testing.assert_close(torch.cat(recorder.steps)[:, 0], torch.stack(expected))
    assert torch.equal(torch.cat(recorder.candidates)[:, 0], tokens)


def test_a_task_that_is_about_neither_findings_nor_diagnoses_gets_its_text_alone(loaded):
    result = structured_answers({"caption": Answer("A heart.", [], [])}, Shown((100, 100)), loaded[1])
    assert result["answers"] == {"caption": "A heart."} and result["malformed"] == {"caption": None}
    assert result["findings"] == result["diagnoses"] == []


@pytest.mark.parametrize("kind", ["as it is", "8 bit", "LoRA"])
def test_a_model_that_is_loaded_already_is_asked_by_the_tasks_name(tiny_checkpoint, radiographs, kind):
    options = {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)} if kind == "8 bit" else {}
    model, processor = load_checkpoint(tiny_checkpoint, **options)
    if kind == "LoRA":
        model = get_peft_model(model, LoraConfig(target_modules=LORA_TARGET_MODULES, init_lora_weights=False))
    pipe = pipeline("chest-xray-findings", model=model.eval(), processor=processor)
    assert isinstance(pipe, ChestXrayFindingsPipeline)
    answer = pipe(radiographs[0])
    assert answer["malformed"] == {"identify": None, "vqa": None}
    base = load_checkpoint(tiny_checkpoint)
    expected = ChestXrayFindingsPipeline(model=base[0].eval(), processor=base[1])(radiographs[0])
    assert (answer == expected) == (kind == "as it is")


@pytest.mark.parametrize("task", ["chest-xray-findings", "image-text-to-text"])
def test_a_saved_pipeline_loads_with_transformers_alone(tiny_checkpoint, phantom_release, tmp_path, task):
    program = f"""
import sys
{NOTHING_OF_OURS}
from transformers import pipeline
task, checkpoint, folder, radiograph = sys.argv[1:]
pipe = pipeline(task, model=checkpoint, trust_remote_code=True)
pipe.save_pretrained(folder)
again = pipeline(task, model=folder, trust_remote_code=True)
if task == "chest-xray-findings":
    answers = [p(radiograph) for p in (pipe, again)]
else:
    question = {{"text": pipe.processor.prompt("vqa"), "return_full_text": False, "max_new_tokens": 8}}
    answers = [p(images=radiograph, **question) for p in (pipe, again)]
    turn = {{"type": "text", "text": "[vqa] " + pipe.processor.instructions["vqa"]}}
    chat = [{{"role": "user", "content": [{{"type": "image", "path": radiograph}}, turn]}}]
    in_chat = pipe(text=chat, return_full_text=False, max_new_tokens=8)
    assert in_chat[0]["generated_text"].strip() == answers[0][0]["generated_text"].strip(), (in_chat, answers)
assert answers[0] == answers[1], answers
"""
    (tmp_path / "stranger.py").write_text(program)
    radiograph = next((phantom_release / "test").iterdir())
    result = subprocess.run(
        [sys.executable, "stranger.py", task, str(tiny_checkpoint), str(tmp_path / "saved"), str(radiograph)],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_several_radiographs_come_in_all_containers_and_none_gives_no_answers(loaded, radiographs):
    pipe = ChestXrayFindingsPipeline(model=loaded[0].eval(), processor=loaded[1], tasks=("vqa",))
    expected = pipe(radiographs)
    column = Dataset.from_dict({"image": radiographs}, features=Features({"image": ImageFeature()}))["image"]
    for several in (tuple(radiographs), column, iter(radiographs), (picture for picture in radiographs)):
        assert list(pipe(several, batch_size=2)) == expected
    arrays = np.stack([np.asarray(picture.resize((64, 64)).convert("RGB")) for picture in radiographs])
    assert pipe(arrays) == pipe(list(arrays)) == pipe(torch.from_numpy(arrays).movedim(-1, 1))
    for none in ([], (), column[:0]):
        assert pipe(none) == []


@pytest.fixture
def explaining(loaded, monkeypatch):
    """The pipeline with a model that answers every radiograph with `FINDINGS`, and explains its words itself."""
    model, processor = loaded
    tokens = [*processor.answer_ids(FINDINGS), processor.tokenizer.eos_token_id]

    def generate(input_ids, **kwargs):
        shape = len(input_ids), len(tokens), 1
        return ConstrainedGreedyOutput(
            sequences=torch.cat([input_ids, torch.tensor([tokens] * len(input_ids))], dim=1),
            token_probabilities=torch.linspace(0.3, 0.9, len(tokens)).expand(shape[:2]),
            candidates=torch.tensor(tokens).view(1, -1, 1).expand(shape),
            candidate_probabilities=torch.ones(shape),
            label_probabilities=[{}] * len(input_ids),
        )

    monkeypatch.setattr(model, "generate", generate)
    return ChestXrayFindingsPipeline(model=model.eval(), processor=processor, tasks=("identify",))


def test_each_finding_has_the_map_of_its_own_label_in_batches_too(explaining, loaded, radiographs):
    model, processor = loaded
    assert all("map" not in finding for finding in explaining(radiographs[0], explain=False)["findings"])
    prompts = [processor.prompt("identify")] * len(radiographs)
    pixels = processor(images=radiographs, text=prompts, padding=True, add_special_tokens=False, return_tensors="pt")
    words = [[[finding.label_span] for finding in text_to_findings(FINDINGS, processor.finding_labels)]] * 3
    for explain, method in ((True, "integrated"), ("attention", "attention")):
        expected = text_maps(model, processor, pixels, [FINDINGS] * 3, words, method)
        for batch_size in (1, 2, 3):
            results = explaining(radiographs, batch_size=batch_size, explain=explain)
            for result, maps in zip(results, expected, strict=True):
                assert [finding["label"] for finding in result["findings"]] == ["Cardiomegaly", "ILD"]
                for finding, right in zip(result["findings"], maps, strict=True):
                    assert finding["map"].shape == (8, 8) and finding["map"].dtype == np.float32
                    np.testing.assert_allclose(finding["map"], right, rtol=0.02, atol=1e-3 * np.abs(right).max())
        assert np.abs(expected[0][0] - expected[0][1]).max() > 0.01 * np.abs(expected[0][0]).max()  # not one for both


def test_a_finding_keeps_its_map_where_another_is_left_out(explaining, radiographs):
    first, second = explaining(radiographs[0], explain="attention")["findings"]
    assert first["score"] < second["score"]
    (left,) = explaining(radiographs[0], explain="attention", threshold=second["score"])["findings"]
    assert left["label"] == second["label"]
    np.testing.assert_array_equal(left["map"], second["map"])


@pytest.mark.parametrize(
    ("orientation", "as_stored"), [(["R", "F"], np.fliplr), (["R", "H"], lambda a: a[::-1, ::-1])]
)
def test_a_turned_radiograph_s_map_lies_as_its_file_does(explaining, orientation, as_stored):
    dataset = small_dicom(np.ascontiguousarray(as_stored(chest())))
    dataset.PatientOrientation = orientation
    with pytest.warns(UserWarning, match="turned to the standard view"):
        turned, upright = explaining([dataset, chest()], explain="gradient_attention")
    for one, other in zip(turned["findings"], upright["findings"], strict=True):
        np.testing.assert_allclose(one["map"], as_stored(other["map"]), rtol=1e-3, atol=1e-6)
        assert np.abs(one["map"] - other["map"]).max() > 0.01 * np.abs(one["map"]).max()  # else this says nothing


def test_an_answer_without_findings_or_in_no_language_is_not_explained(loaded, radiographs):
    model, processor = loaded
    pipe = ChestXrayFindingsPipeline(model=model.eval(), processor=processor)
    (nothing,) = processor.tokenizer.convert_tokens_to_ids(["No▁finding"])
    likely = torch.nn.functional.one_hot(torch.tensor(nothing), model.config.text_config.vocab_size) * 1000
    preferring = model.lm_head.register_forward_hook(lambda module, hidden, logits: logits + likely)
    result = pipe(radiographs[0], explain=True)
    preferring.remove()
    assert result["findings"] == [] and result["malformed"]["identify"] is None
    plain = pipe(radiographs[0], explain=True, constrained=False, max_new_tokens=8)
    assert plain["findings"] == [] and plain["malformed"]["identify"] is not None


def test_a_method_that_is_none_is_refused(loaded):
    with pytest.raises(ValueError, match="explain is True, False or one of attention, .* not 'saliency'"):
        ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1], explain="saliency")


def test_a_detectors_boxes_stand_beside_the_answers(detector_checkpoint):
    model, processor = load_checkpoint(detector_checkpoint)
    with torch.no_grad():
        model.model.detector.head.logits.bias[:22] = torch.linspace(-6, 1, 22)  # it sees something
    processor.score_temperatures |= {"detector": 2.0}
    pipe = ChestXrayFindingsPipeline(model=model, processor=processor)
    one = pipe(chest(), max_new_tokens=64)
    assert set(one) >= {"findings", "detected_findings", "fused_findings"}
    best = one["detected_findings"][0]
    assert best["label"] == processor.finding_labels[21] and 0 <= best["box"]["xmin"] < best["box"]["xmax"] <= 240
    features = model.get_patch_features(**pixels_of(processor, chest()))
    scores = model.detect(features)[0, :100, 1]
    assert best["score"] == pytest.approx(calibrated(scores.max().item(), 2.0))
    assert {tuple(item["source"]) for item in one["fused_findings"]} <= {
        ("answer",),
        ("detector",),
        ("answer", "detector"),
    }
    several = pipe([chest(), chest()], batch_size=2, max_new_tokens=64)
    assert [len(result["detected_findings"]) for result in several] == [len(one["detected_findings"])] * 2
    scores = [item["score"] for item in one["detected_findings"]]
    middle = (min(scores) + max(scores)) / 2
    kept = pipe(chest(), max_new_tokens=64, threshold=middle)["detected_findings"]
    assert 0 < len(kept) < len(scores) and min(item["score"] for item in kept) >= middle
    relative = pipe(chest(), max_new_tokens=64, relative_boxes=True)["detected_findings"][0]["box"]
    assert relative["xmax"] * 240 == pytest.approx(best["box"]["xmax"], abs=0.5)
    assert "detected_findings" not in pipe(chest(), tasks=("vqa",), max_new_tokens=64)
    assert "detector was never trained" in one["warnings"][-1]


def test_the_operating_point_is_one_of_each_source(detector_checkpoint):
    model, processor = load_checkpoint(detector_checkpoint)
    with torch.no_grad():
        model.model.detector.head.logits.bias[:5] = 0.0  # every cell sees five labels, half sure
    every = dict.fromkeys(processor.finding_labels, 2.0)
    processor.score_thresholds = every
    pipe = ChestXrayFindingsPipeline(model=model, processor=processor)
    with pytest.raises(ValueError, match="detector_thresholds, fused_thresholds"):
        pipe(chest(), threshold="operating_point")
    processor.detector_thresholds, processor.fused_thresholds = every | {processor.finding_labels[3]: 0.1}, every
    result = pipe(chest(), threshold="operating_point", tasks=("identify",), max_new_tokens=64)
    assert {item["label"] for item in result["detected_findings"]} == {processor.finding_labels[3]}
    assert result["fused_findings"] == []


def test_a_detector_changes_no_answer(detector_checkpoint):
    """The towers' output is handed on in place of the pixels: the answer is that of the pixels."""
    model, processor = load_checkpoint(detector_checkpoint)
    pipe = ChestXrayFindingsPipeline(model=model, processor=processor)
    answer = pipe(chest(), tasks=("identify",), max_new_tokens=64)["answers"]["identify"]
    inputs = processor(
        images=chest(), text=processor.prompt("identify"), add_special_tokens=False, return_tensors="pt"
    )
    written = model.generate(
        **inputs, max_new_tokens=64, custom_generate=processor.constrained_greedy(), do_sample=False
    )
    assert processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == answer


def pixels_of(processor, image):
    inputs = processor(images=image, text=processor.prompt("identify"), add_special_tokens=False, return_tensors="pt")
    return {name: inputs[name] for name in ("pixel_values", "aux_pixel_values")}


@pytest.mark.parametrize("method", ["attention", "gradient_attention", "integrated", "occlusion"])
def test_answers_that_hear_of_boxes_are_explained_by_patches(detector_checkpoint, method):
    """The tokens that tell of boxes lie nowhere: a map has the patches alone."""
    model, processor = load_checkpoint(detector_checkpoint)
    inputs = pixels_of(processor, chest())
    (maps,) = text_maps(model, processor, inputs, [FINDINGS], [[[(0, 10)]]], method)
    assert maps.shape == (1, 8, 8) and np.isfinite(maps).all() and maps.std() > 0
