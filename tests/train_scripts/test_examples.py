import pytest
import torch

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.template_words import with_template_words
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answers import text_to_findings, text_to_places
from litegpt.train_scripts.arguments import ExampleArguments
from litegpt.train_scripts.examples import ChatCollator, training_examples
from litegpt.train_scripts.patch_features import patch_feature_file
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


WORD_TASKS = ["refer", "describe", "report", "grounded_report", "question"]


@pytest.fixture(scope="module")
def told(rows):
    return with_template_words(rows)


def test_tasks_about_words_are_asked_with_the_processors_prompts_and_true_answers(told, processor, tmp_path):
    views = views_of(told, 1, seed=0)
    store = RadiographStore(told, processor.tower_image_processors, tmp_path)
    examples = training_examples(told, views, range(len(views)), ExampleArguments(WORD_TASKS), processor)
    collator = ChatCollator(processor, store, views, features=None)
    for task in WORD_TASKS:
        of_task = [example for example in examples if example["task"] == task]
        batch = collator(of_task[:3])
        for index, example in enumerate(of_task[:3]):
            prompt = processor.prompt(task, example["about"]).replace("<image>", processor.expanded_image)
            ids = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            assert batch["input_ids"][index, : len(ids)].tolist() == ids
            labels = batch["labels"][index][batch["labels"][index] != -100]
            assert processor.tokenizer.decode(labels[:-1]).strip() == example["answer"]
            assert batch["attention_mask"][index].sum() == example["length"]
        assert (example["about"] is None) == (task in ("report", "grounded_report"))
    boxes = {example["about"]: example for example in examples if example["task"] == "refer"}
    assert any(text_to_places(example["answer"]) for example in boxes.values())
    assert any(not text_to_places(example["answer"]) for example in boxes.values())


def test_prompts_that_differ_from_example_to_example_are_not_kept(told, processor, tmp_path):
    views = views_of(told, 0, seed=0)
    store = RadiographStore(told, processor.tower_image_processors, tmp_path)
    arguments = ExampleArguments(["identify", "refer"])
    examples = training_examples(told, views, range(len(views)), arguments, processor, with_lengths=False)
    assert "length" not in examples.column_names and len(set(examples["about"])) > 10
    collator = ChatCollator(processor, store, views, features=None)
    collator(examples.to_list())
    assert len(collator._prompts_alone) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_a_report_is_asked_with_the_lateral_of_its_study(told, processor, tiny_checkpoint, tmp_path, cached):
    """Frontals of a study with a lateral show both, in the order of the placeholders; all others one."""
    told = told.select(range(4)).remove_columns("view")
    told = told.add_column("study_id", ["1", "2", "1", None]).add_column("view", ["PA", "AP", "LATERAL", "LL"])
    told = told.remove_columns("report_findings").add_column("report_findings", ["Clear."] * 4)
    views = views_of(told, 0, seed=0)
    store = RadiographStore(told, processor.tower_image_processors, tmp_path)
    arguments = ExampleArguments(["report", "vqa"], second_view=True)
    examples = training_examples(told, views, range(4), arguments, processor)
    reports = [example for example in examples if example["task"] == "report"]
    assert [(example["view"], example["second_view"]) for example in reports] == [(0, 2), (1, -1), (2, -1), (3, -1)]
    assert all(example["second_view"] == -1 for example in examples if example["task"] == "vqa")
    features = None
    model = load_checkpoint(tiny_checkpoint)[0].eval()
    if cached:
        features = patch_feature_file(model.model, store, views, tmp_path)
    batch = ChatCollator(processor, store, views, features)([reports[1], reports[0]])
    pictures = [told[row]["image"] for row in (1, 0, 2)]
    expected = processor(
        images=[pictures[:1], pictures[1:]],
        text=[processor.prompt("report"), processor.prompt("report", num_images=2)],
        add_special_tokens=False,
        return_tensors="pt",
        padding=True,
    )
    lengths = [example["length"] for example in (reports[1], reports[0])]
    assert batch["attention_mask"].sum(1).tolist() == lengths and lengths[1] > lengths[0] + processor.image_seq_length
    ids = expected["input_ids"][1][expected["attention_mask"][1].bool()]
    assert torch.equal(batch["input_ids"][1, : len(ids)], ids)
    if cached:
        assert torch.equal(batch["patch_features"], features[[1, 0, 2]])
    else:
        torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"], atol=1e-6, rtol=0)
    assert torch.isfinite(model(**batch).loss)


def test_a_second_view_needs_studies(told, processor):
    arguments = ExampleArguments(["report"], second_view=True)
    with pytest.raises(Refusal, match="second_view: the rows have no study_id"):
        training_examples(told, views_of(told, 0, 0), range(4), arguments, processor)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"report": 1}, "report is not one of"),
        ({"refer": 0}, "must be a number above 0"),
        ({"refer": True}, "above 0"),
    ],
)
def test_weights_of_unknown_tasks_and_of_nothing_are_refused(weights, reason):
    with pytest.raises(ValueError, match=f"task_weights: .*{reason}"):
        ExampleArguments(["identify", "refer"], task_weights=weights)
