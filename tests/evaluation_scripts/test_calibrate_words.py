import json
import shutil

import numpy as np
import pytest

from litegpt.common.programs import Refusal
from litegpt.evaluation_scripts import calibrate_words
from litegpt.evaluation_scripts.arguments import WordCalibrationArguments
from litegpt.evaluation_scripts.calibrate_words import calibration, main, write_into_checkpoint
from litegpt.evaluation_scripts.sentence_scores import ToldSentence
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.sentence_truth import probability_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def told(count, slope=2.0, intercept=-1.0, seed=0):
    """Sentences whose log-odds x are true with the probability sigmoid(slope * x + intercept)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 2, count)
    is_true = rng.random(count) < 1 / (1 + np.exp(-(slope * x + intercept)))
    return [
        ToldSentence(n, "", float(value), bool(one), None)
        for n, (value, one) in enumerate(zip(x, is_true, strict=True))
    ]


def test_a_known_calibration_is_found_and_enough_of_what_is_kept_is_true():
    result = calibration(told(5000), [])
    assert result["slope"] == pytest.approx(2, rel=0.1) and result["intercept"] == pytest.approx(-1, abs=0.15)
    assert result["ece"]["after"] < 0.02 < result["ece"]["before"] and result["auroc"] > 0.9
    stated = [(probability_of(one.belief, result), one.is_true) for one in told(5000, seed=1)]
    kept = [is_true for probability, is_true in stated if probability >= result["threshold"]]
    assert 0.93 < np.mean(kept) < 0.97 and result["sentences"] == {
        "written": 5000,
        "borrowed": 0,
        "true": sum(one.is_true for one in told(5000)),
        "used": 5000,
    }


def test_where_most_sentences_are_true_anyway_half_of_the_false_share_goes():
    sentences = told(4000, intercept=8.0)
    share = np.mean([one.is_true for one in sentences])
    point = calibration(sentences, [])["operating_point"]
    assert share > 0.95 and point["precision_asked"] == pytest.approx((1 + share) / 2)
    assert point["precision"] >= point["precision_asked"] and point["kept"] < 4000


def test_few_false_sentences_are_added_to_from_other_reports_and_it_is_said(capsys):
    written = [one._replace(is_true=True) for one in told(100)]
    result = calibration(written, told(400))
    assert result["sentences"]["borrowed"] == 400
    assert (
        "100 of 100 sentences that the checkpoint writes are true, which tells no calibration"
        in capsys.readouterr().out
    )


def test_where_no_probability_keeps_enough_true_sentences_all_are_doubtful():
    rng = np.random.default_rng(0)
    by_chance = [ToldSentence(n, "", float(rng.normal()), n % 4 == 0, None) for n in range(400)]
    by_chance.append(ToldSentence(0, "", 9.0, False, None))  # the surest of all is false
    result = calibration(by_chance, [])
    assert result["operating_point"] is None and result["threshold"] == 1.0


@pytest.mark.parametrize(("truth", "words"), [(True, "all are true"), (False, "none is true"), (None, "of 0 .* none")])
def test_truths_of_one_kind_are_refused_in_a_sentence(truth, words):
    sentences = [] if truth is None else [one._replace(is_true=truth) for one in told(50)]
    with pytest.raises(Refusal, match=f"needs true and false sentences: .*{words}"):
        calibration(sentences, sentences)


def test_the_checkpoint_stays_as_it_was_but_for_the_calibration(checkpoint):
    path = checkpoint / "processor_config.json"
    others = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file != path}
    before = json.loads(path.read_text())
    write_into_checkpoint(path, {"slope": 0.5, "intercept": 0.25, "threshold": 0.8, "ece": {}})
    after = json.loads(path.read_text())
    assert after.pop("sentence_calibration") == {"slope": 0.5, "intercept": 0.25, "threshold": 0.8}
    before.pop("sentence_calibration", None)
    assert after == before and others == {f.name: f.read_bytes() for f in checkpoint.iterdir() if f != path}
    assert LiteGPTProcessor.from_pretrained(checkpoint).sentence_calibration["threshold"] == 0.8


def test_the_program_writes_what_the_pipeline_then_states(checkpoint, phantom_release, cache_dir, tmp_path, capsys):
    """The checkpoint is not trained: what it writes is no sentence of a template, so others' reports tell it."""
    args = WordCalibrationArguments(
        str(checkpoint),
        str(phantom_release),
        str(tmp_path / "out"),
        split="train",
        template_words=True,
        max_new_tokens=12,
        cache_dir=cache_dir,
    )
    main(args)
    result = json.loads((tmp_path / "out" / "calibration_words.json").read_text())
    assert (result["task"], result["truth"], result["radiographs"]) == ("report", "facts", 24)
    assert result["sentences"]["written"] == 0 and result["sentences"]["borrowed"] > 50
    stated = LiteGPTProcessor.from_pretrained(checkpoint).sentence_calibration
    assert stated == {name: result[name] for name in ("slope", "intercept", "threshold")}
    assert "calibration_words.json: slope" in capsys.readouterr().out
    main(args)  # again, from the log-odds: the calibration that is there changes nothing
    again = json.loads((tmp_path / "out" / "calibration_words.json").read_text())
    assert again["slope"] == pytest.approx(result["slope"]) and again["ece"] == pytest.approx(result["ece"])


def test_what_cannot_be_written_to_is_refused(phantom_release, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate_words, "answer_words", None)  # nothing is asked before
    with pytest.raises(SystemExit, match="acme/litegpt is no folder"):
        main(WordCalibrationArguments("acme/litegpt", str(phantom_release), str(tmp_path / "out")))
