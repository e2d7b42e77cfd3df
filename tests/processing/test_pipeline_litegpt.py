import pytest
import torch
from PIL import Image

from processing.pipeline_litegpt import ChestXrayFindingsPipeline, GreedyTokenProbabilities
from train_scripts.checkpoint import load_checkpoint

FINDINGS = (
    "Local diseases of this chest radiograph are <p>Cardiomegaly</p> {<38><52><81><74>},<p>ILD</p> {<0><10><50><90>}."
)
DIAGNOSES = "Global diseases of this chest radiograph are Pneumonia, COPD."


class Recited(ChestXrayFindingsPipeline):
    """The pipeline with a model that recites given answers, each token with a probability of its own."""

    def recite(self, answers: dict[str, str]) -> "Recited":
        self.answers = answers
        return self

    def _forward(self, inputs, max_new_tokens=512):
        tokens = self.tokenizer(self.answers[inputs["task"]], add_special_tokens=False)["input_ids"]
        self.probabilities = [0.5 + 0.01 * index for index in range(len(tokens) + 1)]
        return {
            **{name: inputs[name] for name in ("is_last", "task", "size")},
            "new_tokens": torch.tensor([tokens + [self.tokenizer.eos_token_id]]),
            "probabilities": torch.tensor([self.probabilities]),
        }


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def reciter(loaded) -> Recited:
    return Recited(model=loaded[0], processor=loaded[1])


def test_boxes_are_in_pixels_of_the_radiograph_as_given(reciter):
    result = reciter.recite({"identify": FINDINGS, "vqa": DIAGNOSES})(Image.new("L", (200, 1000)))
    assert [(finding["label"], finding["box"]) for finding in result["findings"]] == [
        ("Cardiomegaly", {"xmin": 76, "ymin": 520, "xmax": 162, "ymax": 740}),
        ("ILD", {"xmin": 0, "ymin": 100, "xmax": 100, "ymax": 900}),
    ]
    assert [diagnosis["label"] for diagnosis in result["diagnoses"]] == ["Pneumonia", "COPD"]
    assert result["answers"] == {"identify": FINDINGS, "vqa": DIAGNOSES}
    assert result["malformed"] == {"identify": None, "vqa": None}


def test_score_is_the_mean_probability_of_the_tokens_that_write_the_box(reciter):
    result = reciter.recite({"identify": FINDINGS, "vqa": DIAGNOSES})(Image.new("L", (100, 100)))
    # Opening words, <p>, label, "</p> {", four coordinates, "},", ...: the braces share tokens with other text.
    tokens = reciter.tokenizer.tokenize(FINDINGS)
    first = tokens.index("</p>▁{")
    expected = sum(0.5 + 0.01 * index for index in range(first, first + 6)) / 6
    assert result["findings"][0]["score"] == pytest.approx(expected)
    # A diagnosis is a token of its own: the second one of the answer, behind the opening words.
    assert result["diagnoses"][0]["score"] == pytest.approx(0.51)


def test_a_malformed_answer_keeps_its_text_and_reason_and_does_not_touch_the_other(reciter):
    result = reciter.recite({"identify": FINDINGS[:-4], "vqa": DIAGNOSES})(Image.new("L", (100, 100)))
    assert result["findings"] == [] and len(result["diagnoses"]) == 2
    assert "full stop" in result["malformed"]["identify"]
    assert result["answers"]["identify"] == FINDINGS[:-4]


def test_a_batch_gives_what_single_radiographs_give(loaded, radiographs):
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    single = [pipe(radiograph, max_new_tokens=12) for radiograph in radiographs]
    assert pipe(radiographs, batch_size=4, max_new_tokens=12) == single
    assert len({result["answers"]["identify"] for result in single}) > 1


def test_only_the_asked_tasks_are_answered(loaded, radiographs):
    pipe = ChestXrayFindingsPipeline(model=loaded[0], processor=loaded[1])
    assert set(pipe(radiographs[0], tasks=["vqa"], max_new_tokens=2)["answers"]) == {"vqa"}


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
    torch.testing.assert_close(torch.cat(recorder.steps), torch.stack(expected))
