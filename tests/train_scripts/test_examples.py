import pytest
import torch

from litegpt.common.programs import Refusal
from litegpt.processing.answers import text_to_findings
from litegpt.train_scripts.arguments import ExampleArguments
from litegpt.train_scripts.examples import ChatCollator, training_examples
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement, views_of


def test_loss_falls_on_the_answer_alone_and_prompts_are_the_processors(rows, processor, tmp_path):
    views = views_of(rows, 0, seed=0)
    store = RadiographStore(rows, processor.tower_image_processors, tmp_path)
    examples = training_examples(rows, views, range(len(views)), ExampleArguments(["identify", "vqa"]), processor)
    collator = ChatCollator(processor, store, views, features=None)
    picked = [examples[0], examples[1], next(e for e in examples if "<p>" in e["answer"])]
    batch = collator(picked)
    for index, example in enumerate(picked):
        prompt = processor(
            images=rows[views[example["view"]][0]]["image"],
            text=processor.prompt(example["task"]),
            add_special_tokens=False,
            return_tensors="pt",
        )
        length = prompt["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][index, :length], prompt["input_ids"][0])
        assert (batch["labels"][index, :length] == -100).all()
        labels = batch["labels"][index][batch["labels"][index] != -100]
        assert labels[-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.decode(labels[:-1]) == example["answer"]
        assert batch["attention_mask"][index].sum() == length + len(labels)
        torch.testing.assert_close(batch["pixel_values"][index], prompt["pixel_values"][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(batch["aux_pixel_values"][index], prompt["aux_pixel_values"][0], atol=1e-6, rtol=0)


def test_radiographs_without_findings_are_left_out_by_option(rows, processor):
    with_findings = {row for row, findings in enumerate(rows["findings"]) if findings}
    assert 0 < len(with_findings) < len(rows)
    arguments = ExampleArguments(["identify", "vqa"], with_findings_only=True)
    examples = training_examples(rows, views_of(rows, 0, 0), range(len(rows)), arguments, processor)
    for task in arguments.tasks:
        assert {e["view"] for e in examples if e["task"] == task} == with_findings
    without = [row for row in range(len(rows)) if row not in with_findings]
    with pytest.raises(Refusal, match="No radiograph with findings tells the answer to identify or vqa"):
        training_examples(rows, views_of(rows, 0, 0), without, arguments, processor)


def test_findings_are_ordered_after_they_were_moved(rows, processor):
    views = views_of(rows, 2, seed=0)
    arguments = ExampleArguments(box_order="position", with_findings_only=True)
    texts = training_examples(rows, views, range(len(views)), arguments, processor)["answer"]
    upper_edges = [[box[1] for box in boxes_of(text, processor)] for text in texts]
    assert all(edges == sorted(edges) for edges in upper_edges) and max(map(len, upper_edges)) > 2
    by_label = training_examples(rows, views, range(len(views)), ExampleArguments(with_findings_only=True), processor)
    assert [sorted(boxes_of(text, processor)) for text in texts] == [
        sorted(boxes_of(text, processor)) for text in by_label["answer"]
    ]
    assert list(texts) != list(by_label["answer"])


def boxes_of(text, processor):
    return [finding.box for finding in text_to_findings(text, processor.finding_labels)]


def test_the_length_is_that_of_the_whole_sequence(rows, processor, tmp_path):
    views = views_of(rows, 0, seed=0)
    store = RadiographStore(rows, processor.tower_image_processors, tmp_path)
    examples = training_examples(rows, views, range(len(views)), ExampleArguments(["identify", "vqa"]), processor)
    batch = ChatCollator(processor, store, views, features=None)(examples.to_list())
    assert examples["length"][:] == batch["attention_mask"].sum(1).tolist()
    assert len(set(examples["length"])) > 2


def test_radiographs_with_and_without_findings_are_plain_equally_often(rows):
    with_findings = {row for row, findings in enumerate(rows["findings"]) if findings}
    views = views_of(rows, 1, seed=0)
    assert sum(row in with_findings for row, _ in views) == 2 * len(with_findings)
    assert sorted({row for row, _ in views}) == list(range(len(rows)))
    plain = [row for row, movement in views if movement == Movement() and row not in with_findings]
    assert abs(2 * len(plain) - (len(rows) - len(with_findings))) <= len(with_findings)
    assert views == views_of(rows, 1, seed=0) != views_of(rows, 1, seed=1)


def test_a_row_that_does_not_tell_the_answer_is_left_out_of_that_task(rows, processor, capsys):
    unknown = rows.add_column("shadow", range(len(rows))).select(range(4))
    table = unknown.to_dict()
    table["findings"], table["diagnoses"] = [[], [], table["findings"][2], []], [[0], [5], [5], []]
    unknown = type(rows).from_dict(table, features=unknown.features)
    examples = training_examples(unknown, views_of(unknown, 0, 0), range(4), ExampleArguments(), processor)
    assert {0, 3}.isdisjoint(examples["view"]) and 1 in examples["view"]
    assert "2 left out" in capsys.readouterr().out
