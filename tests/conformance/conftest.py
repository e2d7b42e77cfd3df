"""Makes transformers' own tests importable as `transformers_tests`; `make conformance` fetches them."""

import sys
import types
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fetch_transformers_tests import STAND_INS, tests_folder

folder = tests_folder()
if not (folder / "test_modeling_common.py").is_file():
    raise FileNotFoundError(f"no tests of transformers in {folder}: run `make conformance`")
package = types.ModuleType("transformers_tests")
package.__path__ = [str(folder)]
sys.modules["transformers_tests"] = package
sys.path += [str(folder), str(folder.parent)]  # as the tests of a checkout expect it


MARKERS = (
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "generate",
    "is_agent_test",
    "is_pipeline_test",
    "is_staging_test",
    "is_training_test",
    "order",
    "torch_compile_test",
)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: of transformers' tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"transformers' tests: {folder}")
    generation_tests = (folder / "generation" / "test_utils.py").read_text(encoding="utf-8")
    if generation_tests == STAND_INS["generation/test_utils.py"]:
        terminalreporter.write_line(
            "They come from the source package, which has no GenerationTesterMixin: it did not run. "
            "(fetch_transformers_tests.py says how to run it; test_generation.py covers generation.)"
        )
