"""What the programs share: files that an interruption does not spoil, and how bad input is refused."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.exceptions import DatasetGenerationError

from datasets_scripts.files import replacing

if TYPE_CHECKING:
    from trl import TrlParser


def write_text(path: Path, text: str) -> None:
    """Writes under a temporary name, then renames: `path` is whole at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def complete_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of an earlier run; a last line that was cut off by an interruption is removed from the file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        write_text(path, complete)
    return [json.loads(line) for line in complete.splitlines()]


def parsed_arguments(parser: "TrlParser") -> tuple:
    """A training program's arguments; what cannot be used of them ends it with one sentence."""
    try:
        return parser.parse_args_and_config()
    except ValueError as error:
        if "bf16" in str(error):
            raise SystemExit(
                "bf16: there is no GPU that computes in bfloat16. The paper's recipe needs a GPU with 9 to 15 GiB "
                "(train_scripts/memory_per_gpu.py); on a CPU: --bf16 false --use_cpu true, and a tiny model."
            ) from None
        raise SystemExit(str(error).strip().splitlines()[0]) from None


@contextmanager
def refuse_bad_input() -> Iterator[None]:
    """Ends the program with one sentence where a checkpoint or a data set, loaded in this block, cannot be used."""
    try:
        yield
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise SystemExit(str(error.__cause__ or error).strip().splitlines()[0]) from None
