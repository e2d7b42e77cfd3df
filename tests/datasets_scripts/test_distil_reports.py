"""Distilling reports: a line a study, resumable, by rules or a model in a folder; and the check of one's own file."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from litegpt.command import main
from litegpt.datasets_scripts.distil_reports import (
    EXAMPLE_ANSWER,
    EXAMPLE_REPORT,
    LanguageModel,
    Report,
    by_model,
    one_line,
    read_distilled,
)
from litegpt.datasets_scripts.report_facts import distilled
from tests.llama_like_tokenizer import llama_like_tokenizer

REPORTS = [
    ("11", "Small left effusion XXXX.", "No pneumonia."),
    ("12", "", "Heart size is normal. Possible edema."),
    ("13", "", ""),
    ("14", "Nothing of note.", ""),
]
LINES = [
    {"study_id": "11", "distilled": "There is small left effusion. There is no pneumonia."},
    {"study_id": "12", "distilled": "There is no cardiomegaly. There may be edema."},
    {"study_id": "14", "distilled": ""},
]
CHAT = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<answer>"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared folder of made-up reports, two radiographs a study."""
    root = tmp_path_factory.mktemp("reports")
    release = root / "open-i"
    (release / "images").mkdir(parents=True)
    tables = {
        "indiana_reports.csv": ["uid,MeSH,findings,impression"]
        + [f'{uid},normal,"{findings}","{impression}"' for uid, findings, impression in REPORTS],
        "indiana_projections.csv": ["uid,filename,projection"],
    }
    for uid, _, _ in REPORTS:
        for view in ("Frontal", "Lateral"):
            Image.new("L", (8, 8), int(uid)).save(release / "images" / f"{uid}_{view}.dcm.png")
            tables["indiana_projections.csv"].append(f"{uid},{uid}_{view}.dcm.png,{view}")
    for name, lines in tables.items():
        (release / name).write_text("\n".join(lines) + "\n")
    main(["prepare", "open-i", "--data_dir", str(release), "--output_dir", str(root / "prepared")])
    return root / "prepared"


def a_model(folder: Path, *, positions: int = 4096, chat_template: str | None = None) -> str:
    """A tiny Llama of random weights; its answers are noise."""
    tokenizer = llama_like_tokenizer(["Mass"], ["Pneumonia"])
    tokenizer.chat_template = chat_template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=positions,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def distil(prepared, output_dir, *options) -> list[dict]:
    main(
        ["distil-reports", "--data_dir", str(prepared), "--output_dir", str(output_dir)]
        + ["--cache_dir", str(prepared.parent / "cache"), *options]
    )
    return [json.loads(line) for line in (output_dir / "distilled.jsonl").read_text().splitlines()]


def test_rules_write_a_line_a_study_that_has_a_report(prepared, tmp_path, capsys):
    assert distil(prepared, tmp_path / "out") == LINES
    said = capsys.readouterr().out
    assert "3 reports." in said and "1 of 4 studies have no report, and no line." in said
    assert read_distilled(tmp_path / "out" / "distilled.jsonl") == {
        line["study_id"]: line["distilled"] for line in LINES
    }


def test_an_interrupted_run_resumes_after_its_last_whole_line(prepared, tmp_path, capsys):
    whole = distil(prepared, tmp_path / "out")
    path = tmp_path / "out" / "distilled.jsonl"
    path.write_text(json.dumps({**whole[0], "distilled": "kept"}) + '\n{"study_id": "12", "dis')
    assert distil(prepared, tmp_path / "out") == [{"study_id": "11", "distilled": "kept"}, *whole[1:]]
    assert "3 reports, 1 of them from an earlier run." in capsys.readouterr().out


def test_lines_of_other_settings_are_never_mixed(prepared, tmp_path):
    distil(prepared, tmp_path / "out")
    with pytest.raises(SystemExit, match=r"made otherwise \(split train, not train\[:2\]\): delete it"):
        distil(prepared, tmp_path / "out", "--split", "train[:2]")
    (tmp_path / "out" / "distilled.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(SystemExit, match="is damaged: delete it"):
        distil(prepared, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--method", "model"], "--method model and --model_name_or_path go together"),
        (["--model_name_or_path", "x"], "--method model and --model_name_or_path go together"),
        (["--method", "model", "--model_name_or_path", "nowhere"], "nowhere is no folder: a model is read from"),
        (["--split", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_is_one_sentence(prepared, tmp_path, options, sentence):
    with pytest.raises(SystemExit) as stop:
        distil(prepared, tmp_path / "out", *options)
    assert sentence in str(stop.value.code) and "\n" not in str(stop.value.code)
    assert not (tmp_path / "out" / "distilled.jsonl").exists()


def test_data_without_reports_are_refused(phantom_release, tmp_path):
    with pytest.raises(SystemExit, match="has no column study_id: it has no reports to distil"):
        main(
            ["distil-reports", "--data_dir", str(phantom_release), "--output_dir", str(tmp_path / "out")]
            + ["--cache_dir", str(tmp_path / "cache")]
        )


def test_a_model_in_a_folder_is_asked_and_noise_falls_back_to_the_rules(prepared, tmp_path, capsys):
    folder = a_model(tmp_path / "model")
    options = ["--method", "model", "--model_name_or_path", folder, "--max_new_tokens", "5"]
    assert distil(prepared, tmp_path / "out", *options) == LINES
    said = capsys.readouterr().out
    assert "the rules did 2 of 3 reports whose answer was empty" in said and "and 1 that name no entity" in said
    assert "0 answers name an entity that their report does not." in said
    assert distil(prepared, tmp_path / "out", *options, "--batch_size", "1") == LINES  # the same settings


@pytest.mark.parametrize("chat_template", [None, CHAT])
def test_the_prompt_shows_the_example_and_the_reports_entities(tmp_path, chat_template):
    model = LanguageModel(a_model(tmp_path, chat_template=chat_template), batch_size=2, max_new_tokens=3)
    report = Report("1", "Effusions seen.", "COPD.")
    prompt = model.prompt(report)
    assert EXAMPLE_REPORT in prompt and EXAMPLE_ANSWER in prompt
    asked = "Report: Effusions seen. COPD.\nThings: effusion, COPD"
    if chat_template is None:
        assert prompt.endswith(f"{asked}\nSummary:")
    else:
        assert prompt.endswith(f"<assistant>{EXAMPLE_ANSWER}<user>{asked}<answer>") and prompt.count("<user>") == 2
    assert len(model([report, report, report])) == 3


def test_a_report_that_leaves_no_room_is_not_asked_about(tmp_path):
    model = LanguageModel(a_model(tmp_path, positions=40), batch_size=2, max_new_tokens=3)
    assert model([Report("1", "Effusion.", "")]) == [""]


def test_answers_are_kept_where_they_name_an_entity_of_the_report():
    asked = []

    def model(reports):
        asked.append([report.study_id for report in reports])
        return [answers[report.study_id] for report in reports]

    reports = [
        Report("a", "Effusion.", ""),
        Report("b", "Clear.", ""),
        Report("c", "Effusion.", ""),
        Report("d", "Possible mass.", ""),
        Report("e", "Mass.", ""),
    ]
    answers = {"a": "There is effusion.", "c": "I cannot tell.", "d": "There may be mass or nodule.", "e": ""}
    counts = Counter()
    told = dict(by_model(reports, model, 2, counts))
    assert told == {
        "a": "There is effusion.",
        "b": "",
        "c": "There is effusion.",
        "d": "There may be mass or nodule.",
        "e": "There is mass.",
    }
    assert asked == [["a"], ["c", "d"], ["e"]]  # batch by batch, in order, and not about what names no entity
    assert counts == {"not_asked": 1, "fallen_back": 2, "with_others": 1}


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (" There is edema.\nThere is no mass. ", "There is edema. There is no mass."),
        ("There is edema.\n\nReport: another", "There is edema."),
        ("There is edema.\nReport: another", "There is edema."),
        ("<think>Let me see.\n\nEdema?</think>\nThere is edema.", "There is edema."),
        ("<think>never done", ""),
        ("There is edema. There is 1.5 cm nod", "There is edema."),
        ("There is edema. There is edema. There is edema.", "There is edema."),
        ("edema", "edema"),
        ("Summary: edema.", "edema."),
        ("", ""),
    ],
)
def test_an_answer_becomes_one_line_of_whole_sentences(answer, line):
    assert one_line(answer) == line


def test_the_example_of_the_prompt_is_what_it_teaches():
    assert one_line(EXAMPLE_ANSWER) == EXAMPLE_ANSWER
    assert distilled(EXAMPLE_REPORT, None).count("There ") == 6


def test_a_file_of_ones_own_is_read_whatever_else_its_lines_hold(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"study_id": 50000014, "distilled": " No  mass.\\n", "model": "x"}\n\n{"distilled":"","study_id":"a"}'
    )
    assert read_distilled(path) == {"50000014": "No mass.", "a": ""}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 is no JSON in UTF-8"),
        ('"a"', "line 2: a line is an object with study_id and distilled"),
        ('{"study_id": "b"}', "line 2: a line is an object with study_id and distilled"),
        ('{"study_id": null, "distilled": ""}', "line 2: study_id is None, not a string"),
        ('{"study_id": "", "distilled": ""}', "line 2: study_id is '', not a string"),
        ('{"study_id": true, "distilled": ""}', "line 2: study_id is True, not a string"),
        ('{"study_id": "b", "distilled": ["x"]}', r"line 2: distilled is \['x'\], not a string"),
        ('{"study_id": "a", "distilled": "x"}', "line 2: study a is in the file twice"),
    ],
)
def test_a_line_that_cannot_be_is_refused_by_file_and_number(tmp_path, line, sentence):
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"study_id": "a", "distilled": "x"}}\n{line}\n')
    with pytest.raises(ValueError, match=rf"mine\.jsonl, {sentence}"):
        read_distilled(path)


def test_a_file_that_is_empty_or_not_there_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no lines"):
        read_distilled(tmp_path / "empty.jsonl")
    with pytest.raises(FileNotFoundError):
        read_distilled(tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"study_id": "\xe9"}')
    with pytest.raises(ValueError, match="latin.jsonl, line 1 is no JSON in UTF-8"):
        read_distilled(tmp_path / "latin.jsonl")
