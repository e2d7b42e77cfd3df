"""A preparation that several machines share: the tasks of a Slurm array, or the workers of a Ray cluster.

    litegpt prepare vindr-cxr --data_dir s3://bucket/vindr-cxr --output_dir s3://bucket/prepared --shard 3/16
    litegpt prepare vindr-cxr ... --ray auto --num_workers 8 --num_proc 16

In: one release, at the same place on all of them. Out: the folder that `prepare.py` describes, in the same bytes as
one process writes. Every task, or worker, reads the tables itself and writes its own shards. Nobody waits for the
others: whoever finds all shards there, once its own are written, writes what is known then, and README.md last.

The folder is the only thing that they share. On a file system, claiming, writing a shard and finishing are done under
file locks (flock), which a network file system must have, as NFS 4 has them. An object store has none and needs none:
objects are whole, and whoever writes one a second time writes the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm.auto import tqdm

from litegpt.common.addresses import absolute, exists
from litegpt.common.programs import stopped_by_sigterm
from litegpt.common.shard_runs import Machines, own_share, run_shards
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.preparation import summary
from litegpt.datasets_scripts.preparation.prepare import (
    Shard,
    ShardWriter,
    check_complete,
    claim,
    digest_of,
    finish,
    folder_of,
    is_finished,
    locked,
    log,
    prepare,
    shards_of,
    written_shards,
)
from litegpt.datasets_scripts.preparation.release import PreparationOptions, Release


@dataclass(frozen=True)
class PreparationWork:
    """What `run_shards` computes: the shards of a folder that is claimed.

    Attributes:
        folder: of the output, a path from the root or an address.
        names: of all shards.
        written: of those that were there when the run began.
        read: gives the release; a worker calls it, on its machine.
        digest: `digest_of` the release, which a worker must find too.
        num_proc: processes of a worker that read radiographs.
    """

    folder: str
    names: tuple[str, ...]
    written: frozenset[str]
    read: Callable[[], Release]
    options: PreparationOptions
    digest: str
    num_proc: int

    def start(self) -> Callable[[int], None]:
        release = self.read()
        if digest_of(release, self.options) != self.digest:
            raise ValueError("A worker finds another release at that place: other tables, radiographs or times.")
        shards = shards_of(release, self.options.validation_share)
        writer = ShardWriter(self.folder, release, self.options, self.num_proc)
        return lambda number: writer.write(shards[number])

    def name(self, number: int) -> str:
        return self.names[number]

    def is_done(self, number: int) -> bool:
        return self.names[number] in self.written


def run_preparation(
    read_release: Callable[..., Release], arguments: PreparationArguments, options: PreparationOptions, **reading: Any
) -> None:
    """What the programs of all data sets do: prepares alone, or the part that is asked for.

    Args:
        read_release: of the data set's file.
        reading: what it takes beside the folder.

    Raises:
        OSError, ValueError: as `read_release` and `prepare`; or shards are set aside, which it names.
    """
    read = partial(read_release, absolute(arguments.data_dir), **reading)
    if arguments.shard is None and arguments.ray is None:
        prepare(read(), arguments.output_dir, options, arguments.num_proc)
        return
    release, folder = read(), absolute(folder_of(arguments.output_dir))
    digest = digest_of(release, options)
    shards = shards_of(release, options.validation_share)
    if not is_finished(folder, digest, release, options):
        with locked(folder):
            if not is_finished(folder, digest, release, options):
                claim(folder, shards, digest, release, options)
        work = PreparationWork(
            folder=folder,
            names=tuple(shard.name for shard in shards),
            written=frozenset(written_shards(folder)),
            read=read if arguments.ray is not None else lambda: release,  # which this process has read already
            options=options,
            digest=digest,
            num_proc=arguments.num_proc,
        )
        with stopped_by_sigterm():
            _write_own(work, shards, arguments)
        with locked(folder):
            missing = {shard.name for shard in shards} - written_shards(folder)
            if not missing and not is_finished(folder, digest, release, options):
                finish(shards, folder, digest, release, options)
        if missing and not exists(f"{folder}/README.md"):
            print(
                f"{folder}: {len(shards) - len(missing):,} of {len(shards):,} shards are there; the run that finds "
                "all of them finishes."
            )
            return
    check_complete(folder)
    summary.report_losses(folder, options.on_error)
    print(f"{folder}:", *summary.summary_in_words(folder), sep="\n  ")


def _write_own(work: PreparationWork, shards: Sequence[Shard], arguments: PreparationArguments) -> None:
    """Writes the shards of this run's share.

    Raises:
        ValueError: some are set aside.
    """
    numbers = own_share(range(len(shards)), arguments.shard or "0/1")
    machines = Machines(arguments.num_workers, arguments.ray, threads=arguments.num_proc)
    set_aside = []
    total = sum(len(shards[number].images) for number in numbers)
    done = sum(len(shards[number].images) for number in numbers if work.is_done(number))
    with tqdm(total=total, initial=done, unit="image", desc="Radiographs", disable=None) as progress:
        for outcome in run_shards(work, numbers, machines):
            if outcome.set_aside is not None:
                set_aside.append(f"{work.name(outcome.number)} ({outcome.set_aside})")
                continue
            progress.update(len(shards[outcome.number].images))
            log(work.folder, f"{work.name(outcome.number)} is written")
    if set_aside:
        raise ValueError(
            f"{work.folder} is not finished: shards are set aside, {'; '.join(set_aside)}. Who deletes their files in "
            "set_aside/ has them tried again."
        )
