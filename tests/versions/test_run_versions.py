from tests.versions.run_versions import EXCHANGED, ROOT, TOWERS, minors, table, unmet, warning_of_ours
from tests.versions.stranger import OUTPUTS_OF


def test_the_last_release_of_each_minor_is_tried_from_the_oldest_that_we_promise():
    releases = ["5.24.0", "5.22.2", "5.22.10", "5.17.0", "5.16.9", "4.57.1"]
    assert minors(releases) == ["5.17.0", "5.22.10", "5.24.0"]


def test_warnings_of_ours_are_told_from_those_of_libraries():
    library = f"{ROOT}/.venv/lib/torch/jit.py:365: DeprecationWarning: `script_method` is deprecated."
    named = "[transformers] `CLIPImageProcessor` requires torchvision (not installed); falling back"
    assert warning_of_ours(f"{library}\n{named}\n") is None
    for ours in (
        f"{ROOT}/train_scripts/sft.py:3: FutureWarning: old",
        "/hf/modules/transformers_modules/tiny/modeling_litegpt.py:9: UserWarning: odd",
        "[transformers] `past_key_values` are deprecated. Use `cache` instead.",
    ):
        assert warning_of_ours(f"{library}\n{ours}\n{named}") == f"warning of ours: {ours}"


def test_each_kind_of_checkpoint_is_trained_looked_at_and_exchanged_both_ways():
    assert len(OUTPUTS_OF) == 1 + len(TOWERS) and len(EXCHANGED) == 2 * len(OUTPUTS_OF)
    for tower, (program, _) in TOWERS.items():
        assert (ROOT / "tests" / "versions" / f"{tower}.yaml").is_file()
        assert (ROOT / "train_scripts" / program).is_file()


def test_an_overlay_gets_what_it_needs_in_another_release(tmp_path):
    package = tmp_path / "made_up-1.0.dist-info"
    package.mkdir()
    needs = ["numpy>=1", "numpy>=999", "not-on-this-computer", "torch>=999; extra == 'torch'"]
    metadata = [
        "Metadata-Version: 2.1",
        "Name: made-up",
        "Version: 1.0",
        *(f"Requires-Dist: {need}" for need in needs),
    ]
    (package / "METADATA").write_text("\n".join(metadata))
    assert [str(requirement) for requirement in unmet(tmp_path)] == ["numpy>=999", "not-on-this-computer"]


def test_the_table_shows_what_fails_and_what_did_not_run():
    lines = table({"5.17.0": {"sft.py": None, "save": "no"}, "5.18.0": {"sft.py": "no"}}).splitlines()
    assert lines[2:] == ["| 5.17.0 | ok | FAILS |", "| 5.18.0 | FAILS | - |"]
