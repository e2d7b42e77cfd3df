"""The plan of a run over many radiographs: which are in which shard, and with what settings all are answered.

    plan = make_plan("outputs/archive", Sources(["archive"]), {"shard_size": 500, ...})   # or what is there already
    plan.shards, plan.name(123)         # 200, "shard-000123-of-000200"
    plan.items(123)                     # its 500 items, of which alone the worker reads

It is made once, and what is in it stays: a file that is added later is in no shard. On the disk it is `plan/`, Parquet
files whose row groups are shards, and `plan.json`, which is written last.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from litegpt.common.addresses import entries_of, exists, is_remote, open_address, replacing_address, write_bytes
from litegpt.common.programs import Refusal
from litegpt.inference_scripts.many.sources import Item, Sources, items_of
from litegpt.processing.tasks import DEFAULT_TASKS

VERSION = 1
EARLIER = {"tasks": list(DEFAULT_TASKS)}  # what plans of earlier versions do not say
SHARDS_PER_FILE = 1000
SCHEMA = pa.schema([("image_id", pa.string()), ("address", pa.string()), ("row", pa.int64())])


@dataclass(frozen=True)
class Plan:
    """What is to be answered.

    Attributes:
        folder: of the output, a path or an address.
        settings: that make an answer, or its batch, another one.
        radiographs, shards: how many.
        sha256: of the settings and all items.
    """

    folder: str
    settings: dict[str, Any]
    radiographs: int
    shards: int
    sha256: str

    def name(self, number: int) -> str:
        return f"shard-{number:06d}-of-{self.shards:06d}"

    def size(self, number: int) -> int:
        """How many radiographs a shard has."""
        start = number * self.settings["shard_size"]
        return min(self.radiographs - start, self.settings["shard_size"])

    def items(self, number: int) -> list[Item]:
        """The radiographs of a shard."""
        with open_address(_part(self.folder, number // SHARDS_PER_FILE)) as opened:
            group = pq.ParquetFile(opened).read_row_group(number % SHARDS_PER_FILE)
        return [Item(**row) for row in group.to_pylist()]


def make_plan(folder: str, sources: Sources, settings: dict[str, Any]) -> Plan:
    """The plan of an output folder, which is made where there is none.

    Args:
        settings: among them `shard_size`.

    Raises:
        Refusal: the folder has a plan with other settings or of other sources, or results without a plan; there is
            nothing to answer.
        OSError, ValueError: as `items_of`.
    """
    settings = {**settings, "sources": sources.facts()}
    if not is_remote(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    with nullcontext() if is_remote(folder) else FileLock(Path(folder, ".lock")):
        if not exists(f"{folder}/plan.json"):  # another run may have waited for this one
            if exists(f"{folder}/results") and any(entries_of(f"{folder}/results")):
                raise Refusal(f"{folder} has results and no plan.json: choose another output_dir, or remove it.")
            _write(folder, items_of(sources), settings)
    with open_address(f"{folder}/plan.json") as opened:
        found = json.load(opened)
    found["settings"] = EARLIER | found["settings"]
    others = _differences(found["settings"], settings)
    if others:
        raise Refusal(
            f"{folder} was planned otherwise ({'; '.join(others)}): choose another output_dir, or the same settings."
        )
    return Plan(folder, found["settings"], found["radiographs"], found["shards"], found["sha256"])


def _write(folder: str, items: Iterable[Item], settings: dict[str, Any]) -> None:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    shards, radiographs, count, part = _chunks(iter(items), settings["shard_size"]), 0, 0, 0
    while (first := next(shards, None)) is not None:
        with replacing_address(_part(folder, part)) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
            for shard in chain([first], islice(shards, SHARDS_PER_FILE - 1)):
                writer.write_table(pa.Table.from_pylist([item._asdict() for item in shard], SCHEMA))
                digest.update(repr(shard).encode())
                radiographs, count = radiographs + len(shard), count + 1
        part += 1
    if radiographs == 0:
        raise Refusal("There is nothing to answer: no file, no row and no radiograph of a PACS is found.")
    plan = {"version": VERSION, "radiographs": radiographs, "shards": count, "sha256": digest.hexdigest()}
    write_bytes(f"{folder}/plan.json", json.dumps({**plan, "settings": settings}, indent=2).encode() + b"\n")


def _chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _part(folder: str, part: int) -> str:
    return f"{folder}/plan/part-{part:05d}.parquet"


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In words; the name of a checkpoint does not matter where its digest is known."""
    names = [name for name in wanted if name != "checkpoint" or wanted["checkpoint_sha256"] is None]
    return [
        f"{name} {json.dumps(found.get(name))}, not {json.dumps(wanted[name])}"
        for name in names
        if found.get(name) != wanted[name]
    ]
