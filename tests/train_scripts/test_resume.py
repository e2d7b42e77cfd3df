"""From which checkpoint of a run it resumes, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from trl import SFTConfig

from litegpt.common.programs import Refusal
from litegpt.train_scripts import resume
from litegpt.train_scripts.resume import checkpoint_to_resume


def checkpoints(output_dir: Path) -> list[str]:
    return sorted(path.name for path in output_dir.glob("checkpoint-*"))


def test_an_incomplete_checkpoint_is_removed_and_not_gone_on_from(tmp_path, capsys):
    (tmp_path / "checkpoint").mkdir()
    for step, state in ((9, '{"global_step": 9}'), (10, '{"global_step": 10}'), (20, '{"glob'), (30, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    arguments = SFTConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert checkpoint_to_resume(arguments) == str(tmp_path / "checkpoint-10")
    assert checkpoints(tmp_path) == ["checkpoint-10", "checkpoint-9"] and (tmp_path / "checkpoint").is_dir()
    assert "checkpoint-20, which an interruption left incomplete" in capsys.readouterr().out


def test_resuming_from_what_is_no_checkpoint_of_a_run_is_refused(tmp_path):
    arguments = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, resume_from_checkpoint=str(tmp_path / "checkpoint"))
    with pytest.raises(Refusal, match="checkpoint: not a complete checkpoint of a run"):
        checkpoint_to_resume(arguments)


@pytest.mark.parametrize(
    ("release", "processes", "refused"), [("5.17.0", 2, True), ("5.17.0", 1, False), ("5.18.0", 2, False)]
)
def test_what_a_release_of_the_library_cannot_resume_is_said(tmp_path, monkeypatch, release, processes, refused):
    state = tmp_path / "checkpoint-2"
    state.mkdir()
    (state / "trainer_state.json").write_text("{}")
    monkeypatch.setattr(resume, "transformers", SimpleNamespace(__version__=release))
    arguments = SimpleNamespace(
        resume_from_checkpoint=None,
        output_dir=str(tmp_path),
        process_index=0,
        world_size=processes,
        device=torch.device("cpu"),
    )
    if refused:
        with pytest.raises(Refusal, match="transformers 5.17 cannot resume .* in several processes on a CPU"):
            checkpoint_to_resume(arguments)
    else:
        assert checkpoint_to_resume(arguments) == str(state)
