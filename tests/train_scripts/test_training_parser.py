"""What cannot be used of a training program's arguments is one sentence."""

import pytest

from litegpt.train_scripts import pretrain_boxes, sft
from litegpt.train_scripts.arguments import DataArguments

REQUIRED = ["--data_dir", "data", "--model_name_or_path", "model", "--output_dir", "out", "--bf16", "false"]


def refusal(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        sft.argument_parser().parse(words)
    assert stop.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence.partition(": ")[2].strip()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--lerning_rate", "1"], "there is no option --lerning_rate; did you mean --learning_rate?"),
        (
            ["--config", "litegpt_ground"],
            "--config litegpt_ground: there is no such file; did you mean litegpt_grounding?",
        ),
        ([*REQUIRED, "--num-proc", "0"], "--num_proc must be at least 1, not 0."),
        (
            [*REQUIRED, "--task_weights", '{"vqa": 2}'],
            "task_weights: vqa is not one of the tasks identify.",
        ),
        ([*REQUIRED, "more"], "nothing takes the word more"),
        (["--data_dir", "x"], "bf16: there is no GPU that computes in bfloat16."),
    ],
)
def test_a_mistake_is_one_sentence(capsys, words, sentence):
    assert refusal(capsys, *words).startswith(sentence)


def test_a_mistake_in_a_yaml_file_is_one_sentence(capsys, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("cash_features: true\n")
    sentence = refusal(capsys, *REQUIRED, "--config", str(path))
    assert sentence == "the YAML file: there is no option --cash_features; did you mean --cache_features?"


def test_ours_and_the_librarys_arguments_are_read_from_flags_and_a_configuration_of_ours():
    data, examples, _, training, _ = sft.argument_parser().parse([*REQUIRED, "--config", "tiny_stage2"])
    assert isinstance(data, DataArguments) and data.data_dir == "data" and training.output_dir == "out"
    assert "vqa" in examples.tasks
    towers, _ = pretrain_boxes.argument_parser().parse([*REQUIRED, "--repeat_findings", "3"])
    assert towers.repeat_findings == 3


def test_weights_of_tasks_are_a_dictionary_in_a_flag_and_in_a_file():
    words = [*REQUIRED, "--tasks", "vqa", "refer", "--task_weights", '{"vqa": 2, "refer": 0.5}']
    assert sft.argument_parser().parse(words)[1].task_weights == {"vqa": 2, "refer": 0.5}
    weights = sft.argument_parser().parse(["--config", "tiny_words", *REQUIRED])[1].task_weights
    assert weights["refer"] > weights["describe"] > 0
