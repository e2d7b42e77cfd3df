"""What the programs of this folder take, and what every program that reads a data set says of it."""

from dataclasses import dataclass

from litegpt.common.arguments import Count, Place, WholeNumber, argument
from litegpt.common.shard_runs import own_share
from litegpt.datasets_scripts.preparation.merge_readers import MERGES
from litegpt.datasets_scripts.preparation.release import PreparationOptions
from litegpt.processing.tasks import TASKS

__all__ = [
    "ChatsArguments",
    "DistilReportsArguments",
    "OwnDataArguments",
    "PhantomArguments",
    "PreparationArguments",
    "PreparationOptions",
    "ReadersArguments",
]

DATA_DIR = "A release in a layout that `litegpt prepare` knows, or a prepared data set; a path or an address."
CACHE_DIR = "Prepared data; the library's own cache by default."
NUM_PROC = "Processes that read radiographs."


@dataclass
class PreparationArguments:
    data_dir: Place = argument("The folder of the release; a path or an address, such as s3://bucket/folder.")
    output_dir: Place = argument(
        "The prepared folder: new, empty, or one of an interrupted preparation; a path or an address."
    )
    num_proc: Count = argument("Processes that read radiographs, of each worker.", default=1)
    shard: str | None = argument(
        "Of several runs that divide the shards, which this one is: 0/16 to 15/16, as of a Slurm array.", default=None
    )
    ray: str | None = argument(
        "Divide the shards among workers on a Ray cluster: its address; auto, the one that this machine is part of; "
        "local, one of this machine alone.",
        default=None,
    )
    num_workers: Count = argument("Workers on Ray.", default=1)

    def __post_init__(self):
        if self.shard is not None:
            own_share([], self.shard)
        if self.num_workers > 1 and self.ray is None:
            raise ValueError("--num_workers is for --ray; on one machine --num_proc takes more of its cores")


@dataclass
class OwnDataArguments(PreparationArguments):
    name: str | None = argument("What your own data are called; the folder's name by default.", default=None)
    licence: str | None = argument("The licence under which your own data stand; not stated by default.", default=None)


@dataclass
class ReadersArguments(OwnDataArguments):
    merge: str = argument("How the readers of a training image are merged.", default="paper", choices=list(MERGES))


@dataclass
class PhantomArguments:
    output_dir: str = argument("A new folder, or one of an interrupted run with the same settings.")
    num_train: WholeNumber = argument("Training images, each with three readers.", default=2400)
    num_test: WholeNumber = argument("Test images, each with the true findings.", default=300)
    size: str = argument("Pixels of a side, or WIDTHxHEIGHT.", default="256")
    seed: WholeNumber = argument("The same seed gives the same files.", default=0)
    num_proc: Count = argument("Processes that draw.", default=1)
    backgrounds: list[str] | None = argument(
        "Draw findings into the normal radiographs of these folders: data sets, or folders of nothing but normals.",
        default=None,
    )
    backgrounds_licence: str | None = argument(
        "The licence of those radiographs, which the drawn ones keep; unknown by default.", default=None
    )


@dataclass
class ChatsArguments:
    data_dir: Place = argument(DATA_DIR)
    output_dir: str = argument("Where chats.json and images/ are written: new, or one of an interrupted run.")
    split: str = argument("The split, or a slice such as train[:100].", default="train")
    tasks: list[str] | None = argument(
        "The tasks that are asked; the rows' own chats by default, and where they have none, what a radiograph is "
        "usually asked.",
        default=None,
        choices=list(TASKS),
    )
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    num_proc: Count = argument(NUM_PROC, default=1)


@dataclass
class DistilReportsArguments:
    data_dir: Place = argument(DATA_DIR)
    output_dir: str = argument("Where distilled.jsonl is written: new, or one of an interrupted run.")
    split: str = argument("The split, or a slice such as train[:100].", default="train")
    method: str = argument(
        "How: rules, or model, a language model that follows instructions.",
        default="rules",
        choices=["rules", "model"],
    )
    model_name_or_path: str | None = argument("Of --method model: a folder on this machine.", default=None)
    batch_size: Count = argument("Reports that a model answers together.", default=8)
    max_new_tokens: Count = argument("Of a model's answer.", default=256)
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    num_proc: Count = argument(NUM_PROC, default=1)
