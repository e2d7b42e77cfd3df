import json
import os
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from litegpt.evaluation_scripts import paper_tables
from litegpt.evaluation_scripts.arguments import PaperTablesArguments
from litegpt.evaluation_scripts.paper_tables import ROWS, TABLES, as_markdown, collect, main, steps
from tests.made_up_metrics import made_up_metrics

CONFIGS = Path(paper_tables.__file__).parents[1] / "train_scripts" / "configs"


@pytest.fixture
def weights(tmp_path) -> Path:
    folder = tmp_path / "weights"
    for row in ROWS.values():
        (folder / row.weights).mkdir(parents=True, exist_ok=True)
        (folder / row.weights / "config.json").write_text("{}")
    (folder / "biomedclip" / "adapter").mkdir()
    return folder


def arguments(tmp_path, **options) -> PaperTablesArguments:
    return PaperTablesArguments("release", str(tmp_path / "weights"), str(tmp_path / "out"), **options)


class Programs:
    """In place of the programs: notes their commands and writes what they write, or fails."""

    def __init__(self, failing: str = "nothing"):
        self.commands: list[list[str]] = []
        self.failing = failing

    def run(self, command, **kwargs):
        self.commands.append(command)
        output_dir = Path(command[command.index("--output_dir") + 1])
        if self.failing in str(output_dir):
            return SimpleNamespace(returncode=1)
        if "evaluate_litegpt.py" in command[1]:
            task = command[command.index("--tasks") + 1]
            (output_dir / "metrics.json").write_text(json.dumps(made_up_metrics(0.5, tasks=(task,))))
        else:
            (output_dir / "checkpoint").mkdir(parents=True)
            (output_dir / "adapter").mkdir()
        return SimpleNamespace(returncode=0)


@pytest.fixture
def programs(monkeypatch) -> Programs:
    stand_in = Programs()
    monkeypatch.setattr(paper_tables.subprocess, "run", lambda *a, **k: stand_in.run(*a, **k))
    return stand_in


def option(command: list[str], name: str) -> str:
    return command[command.index(f"--{name}") + 1]


def test_the_papers_figures_are_those_of_its_text():
    """Some of them as they stand in the paper; each table has as many as it has columns."""
    assert TABLES[1].paper["litegpt"] == (84, 83, 59, 95, 70, 89)
    assert TABLES[3].paper["biomedclip"] == (10.72, 9.01, 6.75)
    assert TABLES[4].paper["pubmedclip"][-2:] == (34, 0.1)
    assert TABLES[6].paper["litegpt"] == TABLES[3].paper["litegpt"]
    for table in TABLES.values():
        assert all(len(figures) == len(table.columns) for figures in table.paper.values())


def test_every_row_has_its_configuration_and_asks_what_it_says():
    for name, row in ROWS.items():
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        assert config["tasks"] == [row.task] and config["with_findings_only"] is True


def test_all_rows_are_trained_in_two_stages_and_evaluated(tmp_path, weights, programs, capsys):
    assert main(arguments(tmp_path, sft_options="--max_steps 4", launch_options="--num_processes 2")) == 0
    of_row = {name: [c for c in programs.commands if f"/{name}/" in option(c, "output_dir")] for name in ROWS}
    # Table 6 needs no second stage of [grounding].
    assert {name: len(commands) for name, commands in of_row.items()} == {
        **dict.fromkeys(ROWS, 4),
        "litegpt_grounding": 2,
    }
    stage1, evaluation1, stage2, evaluation2 = of_row["biomedclip"]
    assert stage1[1:5] == ["-m", "accelerate.commands.launch", "--num_processes", "2"]
    assert Path(option(stage1, "config")).name == "biomedclip.yaml" and option(stage1, "max_steps") == "4"
    assert option(stage1, "model_name_or_path") == str(weights / "biomedclip" / "adapter")
    assert "--tasks" not in stage1  # the configuration says them
    assert option(evaluation1, "tasks") == "identify" and option(evaluation1, "with_findings_only") == "true"
    assert option(stage2, "model_name_or_path") == str(tmp_path / "out" / "biomedclip" / "stage1" / "adapter")
    assert option(stage2, "tasks") == "vqa" and option(stage2, "with_findings_only") == "false"
    assert option(evaluation2, "tasks") == "vqa" and "--with_findings_only" not in evaluation2
    assert option(of_row["litegpt"][0], "model_name_or_path") == str(weights / "litegpt")
    assert option(of_row["litegpt_grounding"][1], "tasks") == "grounding"

    tables = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert list(tables) == ["1", "2", "3", "4", "5", "6"]
    litegpt = "BiomedCLIP + PubMedCLIP - Llama 2"
    assert tables["3"]["rows"][litegpt]["Accuracy@0.3"] == {
        "paper": 12.54,
        "ours": 50.0,
        "difference": pytest.approx(37.46),
    }
    assert tables["5"]["rows"][litegpt]["CIDEr"]["ours"] == 0.5
    markdown = (tmp_path / "out" / "tables.md").read_text()
    assert markdown in capsys.readouterr().out
    assert f"| {litegpt} | paper | 12.54 | 10.5 | 8.12 |\n|  | ours | 50.00 | 50.00 | 50.00 |" in markdown
    assert "|  | difference | +37.46 | +39.50 | +41.88 |" in markdown
    assert "ours without synonyms" in markdown and "| [grounding] | paper | 11.98 |" in markdown


def test_stage_two_starts_from_the_checkpoint_where_stage_one_was_trained_without_lora(tmp_path, weights, programs):
    args = arguments(tmp_path, rows=["biomedclip"], tables=[1], sft_options="--use_peft false")
    (tmp_path / "out" / "biomedclip" / "stage1" / "checkpoint").mkdir(parents=True)
    assert main(args) == 0
    stage2 = next(command for command in programs.commands if option(command, "output_dir").endswith("stage2"))
    assert option(stage2, "model_name_or_path") == str(tmp_path / "out" / "biomedclip" / "stage1" / "checkpoint")


def test_what_is_finished_is_not_done_again(tmp_path, weights, programs):
    args = arguments(tmp_path, rows=["litegpt"])
    main(args)
    commands = list(programs.commands)
    (tmp_path / "out" / "litegpt" / "stage2" / "metrics.json").unlink()
    main(args)
    assert programs.commands == [*commands, commands[-1]]
    with pytest.raises(SystemExit, match="settings.json: results of other data, weights or options"):
        main(arguments(tmp_path, rows=["litegpt"], sft_options="--max_steps 2"))


def test_a_row_that_fails_is_named_and_the_others_go_on(tmp_path, weights, programs, capsys):
    programs.failing = "pubmedclip/stage2"
    (weights / "minigpt_v2" / "config.json").unlink()
    assert main(arguments(tmp_path)) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and errors[0] == f"minigpt_v2: {weights / 'minigpt_v2'} has no checkpoint."
    assert errors[1].startswith("pubmedclip: stage2 failed with status 1")
    tables = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert tables["1"]["rows"]["PubMedCLIP - Llama 2"]["Finding, F1"] == {
        "paper": 59,
        "ours": None,
        "difference": None,
    }
    assert tables["3"]["rows"]["PubMedCLIP - Llama 2"]["Accuracy@0.5"]["ours"] == 50.0
    assert tables["1"]["rows"]["BiomedCLIP - Llama 2"]["Finding, F1"]["ours"] == 50.0
    assert "| PubMedCLIP - Llama 2 | paper | 73 |" in as_markdown(tables) and "|  | ours | - |" in as_markdown(tables)


def test_metrics_of_an_older_program_are_refused(tmp_path, weights):
    path = tmp_path / "out" / "litegpt" / "stage1" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"identify": {}, "control": {}}')
    with pytest.raises(SystemExit, match=r"metrics.json is of an older evaluate_litegpt.py, .* run it again\.$"):
        collect(arguments(tmp_path, tables=[3]))


@pytest.mark.parametrize(("table", "names"), [(3, ["stage1", "evaluation of stage1"]), (1, ["stage1", "stage2"])])
def test_a_table_needs_its_own_stages_alone(tmp_path, weights, table, names):
    args = arguments(tmp_path, tables=[table])
    assert [step.name for step in steps(args, "litegpt")][: len(names)] == names
    assert list(steps(args, "litegpt_grounding")) == []
    assert list(collect(args)) == [str(table)]


def test_unknown_rows_and_tables_are_refused(tmp_path, weights):
    with pytest.raises(SystemExit, match="no row other; there are minigpt_v2"):
        main(arguments(tmp_path, rows=["other"]))
    with pytest.raises(SystemExit, match="no table 7; there are 1, 2, 3, 4, 5, 6"):
        main(arguments(tmp_path, tables=[7]))
    with pytest.raises(SystemExit, match="none of them is in the tables 1"):
        main(arguments(tmp_path, rows=["litegpt_grounding"], tables=[1]))


@pytest.mark.slow
def test_the_real_programs_fill_a_table(tiny_checkpoint, phantom_release, tmp_path):
    (tmp_path / "weights").mkdir()
    os.symlink(tiny_checkpoint, tmp_path / "weights" / "litegpt")
    sft = "--max_steps 2 --lora_r 4 --use_cpu true --bf16 false --dtype float32 --load_in_8bit false --report_to none"
    command = ["python", paper_tables.__file__, "--data_dir", phantom_release, "--weights_dir", tmp_path / "weights"]
    command += ["--output_dir", tmp_path / "out", "--rows", "litegpt", "--cache_dir", tmp_path / "cache"]
    evaluation = "--constrained false --max_new_tokens 6"
    command += ["--launch_options=--cpu", "--sft_options", sft, "--evaluation_options", evaluation]
    command = [str(part) for part in command]
    command[0] = paper_tables.sys.executable
    process = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert process.returncode == 0, f"{shlex.join(command)}\n{process.stderr[-3000:]}"
    tables = json.loads((tmp_path / "out" / "tables.json").read_text())
    ours = [f["ours"] for table in tables.values() for f in table["rows"].get(ROWS["litegpt"].title, {}).values()]
    assert len(ours) == 6 + 1 + 3 + 10 + 10 and None not in ours
