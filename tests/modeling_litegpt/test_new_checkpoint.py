import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from litegpt.datasets_scripts.annotations import row_features
from litegpt.datasets_scripts.instructions import INSTRUCTIONS, instructions_for
from litegpt.datasets_scripts.preparation.dataset_card import card_text, count_split
from litegpt.datasets_scripts.preparation.release import DataSetFacts, Release
from litegpt.datasets_scripts.template_words import template_texts
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt.answer_tokenizer import frequent_words, train_tokenizer
from litegpt.modeling_litegpt.new_checkpoint import labels_of, main
from litegpt.processing.answers import Finding, diagnoses_to_text, findings_to_text, places_to_text
from litegpt.processing.processing_litegpt import LiteGPTProcessor

OTHER_FINDINGS, OTHER_DIAGNOSES = ["Effusion", "Mass"], ["Hernia", "Mass", "Pleural thickening", "No finding"]


@pytest.fixture
def prepared(tmp_path) -> Path:
    """A prepared folder of one row with labels of its own."""
    folder = tmp_path / "prepared"
    (folder / "data").mkdir(parents=True)
    features = row_features(OTHER_FINDINGS, OTHER_DIAGNOSES)
    row = dict.fromkeys(features) | {"image_id": "1", "findings": [], "diagnoses": [3]}
    table = pa.Table.from_pylist([row], schema=features.arrow_schema)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    facts = DataSetFacts("other", "Other", "https://example.org", "none", "https://example.org")
    release = Release(facts, OTHER_FINDINGS, OTHER_DIAGNOSES, annotations={}, images={}, counts={})
    card = card_text(release, (), {"train": count_split([([], ["No finding"])])}, options={}, summary=[])
    (folder / "README.md").write_text(card)
    return folder


def test_a_checkpoint_has_vindr_cxrs_labels_by_default(tiny_checkpoint):
    processor = LiteGPTProcessor.from_pretrained(tiny_checkpoint)
    assert processor.finding_labels == list(FINDING_LABELS) and processor.diagnosis_labels == list(DIAGNOSIS_LABELS)
    assert processor.instructions == INSTRUCTIONS


def test_a_checkpoint_for_a_prepared_folder_has_its_labels_tokenizer_and_instructions(
    prepared, tiny_arguments, tmp_path
):
    main(replace(tiny_arguments, data_dir=str(prepared), output_dir=str(tmp_path / "checkpoint")))
    processor = LiteGPTProcessor.from_pretrained(tmp_path / "checkpoint")
    assert processor.finding_labels == OTHER_FINDINGS and processor.diagnosis_labels == OTHER_DIAGNOSES
    assert processor.instructions == instructions_for(OTHER_DIAGNOSES) != INSTRUCTIONS
    assert json.loads((tmp_path / "checkpoint" / "config.json").read_text())["text_config"]["vocab_size"] == len(
        processor.tokenizer
    )
    answer = findings_to_text([Finding("Effusion", (0.1, 0.2, 0.3, 0.4))])
    tokens = processor.tokenizer.tokenize(answer)
    assert "Effusion" in tokens and len(tokens) == 10
    assert "Mass" in processor.tokenizer.tokenize(diagnoses_to_text(["Mass"]))[-2]
    assert processor.tokenizer.decode(processor.tokenizer(answer, add_special_tokens=False)["input_ids"]) == answer


def test_the_tokenizer_knows_an_answer_behind_a_prompt_without_bytes_whatever_the_label():
    tokenizer = train_tokenizer(OTHER_FINDINGS, OTHER_DIAGNOSES)
    for text in [
        f"[/INST] {findings_to_text([Finding(label, (0, 0, 1, 1)) for label in OTHER_FINDINGS])}",
        *(f"[/INST] {diagnoses_to_text([label])}" for label in OTHER_DIAGNOSES),
        *(
            text.replace("{about}", "mass in the left upper zone")
            for text in instructions_for(OTHER_DIAGNOSES).values()
        ),
    ]:
        assert not [token for token in tokenizer.tokenize(text) if token.startswith("<0x")], text


def test_words_of_templates_phrases_and_boxes_need_no_bytes():
    tokenizer = train_tokenizer(FINDING_LABELS, DIAGNOSIS_LABELS)
    texts = [text for text in template_texts(FINDING_LABELS)]
    texts += [f"<p>{text}</p> <p>{text}</p> {{<1><20><100><99>}}" for text in texts]
    texts += [places_to_text([]), places_to_text([(0, 0, 1, 1), (0.5, 0.5, 1, 1)]), *FINDING_LABELS]
    for text in texts:
        tokens = tokenizer.tokenize(f"[/INST] {text}")
        assert not [token for token in tokens if token.startswith("<0x")], tokens
        assert (
            tokenizer.decode(tokenizer(f"[/INST] {text}", add_special_tokens=False)["input_ids"]) == f"[/INST] {text}"
        )
    assert tokenizer.tokenize(places_to_text([])) == ["▁Boxes▁of▁this▁phrase▁are▁", "None", "."]
    assert all(len(tokenizer.tokenize(label)) == 1 for label in FINDING_LABELS)


def test_words_change_no_token_of_answers_and_prompts():
    """Labels, coordinates and stock phrases stay one token, whatever words there are beside them."""
    texts = [
        "Cardiomegaly No finding diseases of this chest radiograph are local",
        "<p> 38 }. Pleural effusion Nodule",
    ]
    words = frequent_words(texts)
    assert {"▁diseases", "Pleural", "▁effusion", "▁38"} <= set(words)
    tokenizers = [train_tokenizer(FINDING_LABELS, DIAGNOSIS_LABELS, extra) for extra in ((), words)]
    findings = [Finding(label, (n / 100, 0.5, 1 - n / 100, 1)) for n, label in enumerate(FINDING_LABELS)]
    answers = [findings_to_text(findings), findings_to_text([]), *map(diagnoses_to_text, [DIAGNOSIS_LABELS[:-1], []])]
    for text in [*answers, *(INSTRUCTIONS[task] for task in ("identify", "vqa", "grounding"))]:
        few, many = ([str(token) for token in tokenizer.tokenize(text)] for tokenizer in tokenizers)
        assert few == many
    parts = [token.strip("▁") for token in tokenizers[0].tokenize(answers[0])]
    assert parts[0] == "Local▁diseases▁of▁this▁chest▁radiograph▁are"
    assert parts[1:8] == ["<p>", "Aortic▁enlargement", "</p>▁{", "<0>", "<50>", "<100>", "<100>"]
    assert len(parts) == 1 + 8 * len(FINDING_LABELS) + 1


def test_words_of_named_data_sets_are_tokens(tiny_arguments, tmp_path):
    folder = tmp_path / "texts"
    (folder / "data").mkdir(parents=True)
    columns = ("report_findings", "qa", "chat")
    features = row_features(OTHER_FINDINGS, OTHER_DIAGNOSES, columns)
    row = dict.fromkeys(features) | {"image_id": "1", "findings": [], "diagnoses": [3]}
    row |= {"report_findings": "Sternotomy wires. Lungs are clear."}
    row |= {"qa": [{"question": "Which modality?", "answer": "radiography", "closed": False}]}
    row |= {"chat": [{"role": "user", "text": "Hello there"}]}
    pq.write_table(
        pa.Table.from_pylist([row], schema=features.arrow_schema), folder / "data" / "train-00000-of-00001.parquet"
    )
    facts = DataSetFacts("other", "Other", "https://example.org", "none", "https://example.org")
    release = Release(facts, OTHER_FINDINGS, OTHER_DIAGNOSES, annotations={}, images={}, counts={}, columns=columns)
    (folder / "README.md").write_text(
        card_text(release, columns, {"train": count_split([([], ["No finding"])])}, options={}, summary=[])
    )
    main(replace(tiny_arguments, text_dirs=[str(folder)], output_dir=str(tmp_path / "checkpoint")))
    tokenizer = LiteGPTProcessor.from_pretrained(tmp_path / "checkpoint").tokenizer
    tokens = tokenizer.tokenize("Sternotomy wires. <p>Lungs are clear.</p> Which modality? radiography Hello there")
    assert {"▁Sternotomy", "Lungs", "▁modality", "▁radiography", "▁there"} <= set(tokens)
    assert not [token for token in tokens if token.startswith("<0x")]
    assert any(token.startswith("<0x") for token in tokenizer.tokenize("unheard"))


def test_a_folder_without_texts_gives_no_words(prepared, tiny_arguments, tmp_path):
    with pytest.raises(SystemExit, match="its rows have none of report_findings"):
        main(replace(tiny_arguments, text_dirs=[str(prepared)], output_dir=str(tmp_path / "checkpoint")))


def test_a_folder_that_is_not_prepared_is_refused_with_one_sentence(tiny_arguments, tmp_path):
    with pytest.raises(SystemExit, match="is no prepared data set"):
        main(replace(tiny_arguments, data_dir=str(tmp_path), output_dir=str(tmp_path / "checkpoint")))
    assert not (tmp_path / "checkpoint").exists()


def test_labels_keep_the_order_of_the_class_numbers(prepared):
    assert labels_of(str(prepared)) == (OTHER_FINDINGS, OTHER_DIAGNOSES)
    assert labels_of(None) == (list(FINDING_LABELS), list(DIAGNOSIS_LABELS))


def test_weights_that_are_there_are_not_overwritten(tiny_checkpoint, tiny_arguments):
    weights = (tiny_checkpoint / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit, match="exists already and is not empty: choose another output_dir"):
        main(replace(tiny_arguments, output_dir=str(tiny_checkpoint)))
    assert (tiny_checkpoint / "model.safetensors").read_bytes() == weights
