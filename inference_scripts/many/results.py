"""The results of a run over many radiographs: a file a shard, in it a row a radiograph.

    row_of(item, sha256, received, output, facts, tasks)  # {"image_id": "a1", "findings": [...], "error": None, ...}
    write_results("outputs/archive", "shard-000123-of-000200", rows, {"format": "parquet", "tasks": tasks})
    counted("outputs/archive", names, "parquet")         # Counts(answered=497, unusable=2, others={"text": 1})

    datasets.load_dataset("parquet", data_files="outputs/archive/results/*.parquet")

A radiograph that could not be used is a row with its `error`; a file that is no radiograph one with its `kind`; both
are null of one that was answered. All files of a run have one schema, which its questions make: `answers` by question,
and a column for each kind of answer in words. The same rows give the same bytes.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from socket import gethostname
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from litegpt.common.addresses import entries_of, exists, is_remote, open_address, write_bytes
from litegpt.inference_scripts.dicom_identity import UIDS
from litegpt.inference_scripts.inbox import Received, Rejected
from litegpt.inference_scripts.many.sources import Item
from litegpt.processing.tasks import TASKS, split_question

FORMATS = ("parquet", "jsonl")
BOX_LISTS = ("findings", "candidates", "detected_findings", "fused_findings", "view_findings")
READING_THREADS = 8  # of results that are counted

TEXT = pa.string()
BOX = pa.struct([(side, pa.int32()) for side in ("xmin", "ymin", "xmax", "ymax")])
FINDING = pa.struct(
    [
        ("label", TEXT),
        ("score", pa.float64()),
        ("box", BOX),
        ("source", pa.list_(TEXT)),
        ("views", pa.int32()),
    ]
)
PROBABILITIES = pa.list_(pa.struct([("label", TEXT), ("probability", pa.float64())]))
SCORED_BOXES = ("boxes", pa.list_(pa.struct([("score", pa.float64()), ("box", BOX)])))
WORDS = [("text", TEXT), ("score", pa.float64()), ("verified", pa.bool_())]
SENTENCE = [("text", TEXT), ("probability", pa.float64()), ("verified", pa.bool_()), ("doubtful", pa.bool_())]
IN_WORDS = {  # kinds of answers in words, by the pipeline's name for them -> what an entry has
    "phrases": [("phrase", TEXT), ("present", pa.float64()), SCORED_BOXES],
    "descriptions": [("box", BOX), *WORDS],
    "replies": [("question", TEXT), *WORDS],
    "report": SENTENCE,
    "grounded_report": [*SENTENCE, SCORED_BOXES],
}


@lru_cache(maxsize=4)  # every row asks for it
def schema_of(tasks: tuple[str, ...]) -> pa.Schema:
    """The columns of a run's results; `tasks`: its question strings."""
    outputs = {TASKS[split_question(asked)[0]].kind.output for asked in tasks}
    in_words = [(name, pa.list_(pa.struct(fields))) for name, fields in IN_WORDS.items() if name in outputs]
    return pa.schema(
        [
            *((name, TEXT) for name in ("image_id", "file", "sha256", "kind", "error")),
            *((name, TEXT) for name in (*UIDS, "view", "laterality")),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("answers", pa.struct([(task, TEXT) for task in tasks])),
            *((name, pa.list_(FINDING)) for name in BOX_LISTS),
            ("diagnoses", pa.list_(pa.struct([("label", TEXT), ("score", pa.float64())]))),
            *in_words,
            ("probabilities", pa.struct([(task, PROBABILITIES) for task in tasks])),
            ("malformed", pa.struct([(task, TEXT) for task in tasks])),
            ("warnings", pa.list_(TEXT)),
            *((name, TEXT) for name in ("checkpoint", "checkpoint_sha256", "caution")),
        ]
    )


@dataclass
class Counts:
    """What became of radiographs.

    Attributes:
        others: by kind, the files that are no radiographs.
    """

    answered: int = 0
    unusable: int = 0
    others: Counter[str] = field(default_factory=Counter)


def row_of(
    item: Item,
    sha256: str | None,
    found: Received | Rejected,
    output: dict[str, Any],
    facts: dict[str, Any],
    tasks: Sequence[str],
) -> dict[str, Any]:
    """The row of a radiograph.

    Args:
        sha256: of its bytes, where they could be read.
        output: what the pipeline returned for it; nothing where it was not asked.
        facts: of the checkpoint.
        tasks: what is asked of all.
    """
    row = {**dict.fromkeys(schema_of(tuple(tasks)).names), **facts}
    if isinstance(found, Rejected):
        row |= {"kind": found.kind, "error": found.reason if found.kind is None else None}
    else:
        row |= {**found.facts, **{name: value for name, value in output.items() if name in row}}
        row["probabilities"] = {
            task: [{"label": label, "probability": value} for label, value in values.items()]
            for task, values in output["probabilities"].items()
        }
    return row | {"image_id": item.image_id, "file": item.name, "sha256": sha256}


def result_address(folder: str, name: str, format: str) -> str:
    return f"{folder}/results/{name}.{format}"


def write_results(folder: str, name: str, rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Writes a shard's rows, whole or not at all, also where two workers write the same shard at once.

    Args:
        settings: of the plan: "format" and "tasks".
    """
    format = settings["format"]
    if format == "jsonl":
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        file = BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows), schema_of(tuple(settings["tasks"]))), file)
        data = file.getvalue()
    address = result_address(folder, name, format)
    if is_remote(address):
        write_bytes(address, data)
        return
    path = Path(address)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{gethostname()}-{os.getpid()}.incomplete")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def results_there(folder: str, format: str) -> set[str]:
    """The shards that have results, by name."""
    folder, suffix = f"{folder}/results", f".{format}"
    names = entries_of(folder)[1] if exists(folder) else []
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def counted(folder: str, names: Iterable[str], format: str) -> Counts:
    """What became of the radiographs of several shards, whose results are there."""
    counts = Counts()
    with ThreadPoolExecutor(READING_THREADS) as threads:
        for found in threads.map(partial(_outcomes, folder, format), names):
            for kind, error in found:
                if kind is not None:
                    counts.others[kind] += 1
                elif error is not None:
                    counts.unusable += 1
                else:
                    counts.answered += 1
    return counts


def _outcomes(folder: str, format: str, name: str) -> list[tuple[str | None, str | None]]:
    """Of each row its kind and its error."""
    with open_address(result_address(folder, name, format)) as opened:
        if format == "jsonl":
            return [(row["kind"], row["error"]) for row in map(json.loads, opened)]
        table = pq.read_table(opened, columns=["kind", "error"])
    return list(zip(table["kind"].to_pylist(), table["error"].to_pylist(), strict=True))
