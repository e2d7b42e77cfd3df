"""Puts a checkpoint, an adapter or a prepared data set on the Hugging Face Hub, with its card.

    hf auth login
    litegpt push --folder outputs/demo/checkpoint --metrics outputs/demo/metrics.json \\
        --repo_id acme/litegpt --tag v1
    litegpt push --folder outputs/stage1/adapter --base_model acme/litegpt \\
        --repo_id acme/litegpt-adapter
    litegpt push --folder prepared/chestx-ray14 --repo_id acme/chestx-ray14
    litegpt push --folder outputs/demo/checkpoint --repo_id acme/litegpt --space acme/litegpt-page

What the folder is, it tells itself; what is not whole, or none of the three, is refused. A checkpoint is a LiteGPT, a
CXR-CLIP, an ECAMP or a radiograph classifier. The folder's README.md becomes the card, with the repository's name and,
of a LiteGPT, with the figures of `metrics.json`; the folder stays as it is. Nobody sees a half-pushed repository: the
big files go up one by one, then one commit makes all visible. The same command resumes where an interrupted push
stopped: files that are up are not sent again. With `--space` the page of `litegpt app` follows as a Space that asks
the checkpoint; `--space_dir DIR` only writes its files.
"""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCard, HfApi
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError, safe_open

from litegpt.common.arguments import parse
from litegpt.common.files import weights_sha256
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.annotations import REPORT_TEXTS
from litegpt.datasets_scripts.preparation.dataset_card import card_for_hub
from litegpt.evaluation_scripts.reports.sections import check_metrics
from litegpt.hub.arguments import PushArguments
from litegpt.hub.figures_of_card import with_figures
from litegpt.hub.space import push_space, space_files, write_space
from litegpt.modeling_litegpt.model_card import for_repository

# Checkpoints that there are, by `model_type`: what they are called, the module that says what their files hold (by its
# name: a push imports no torch), and the file of their processor: an ECAMP's is an image processor alone.
MODEL_TYPES = {
    "litegpt": ("LiteGPT", "litegpt.modeling_litegpt.checkpoints", "processor_config.json"),
    "cxr_clip": ("CXR-CLIP", "litegpt.modeling_towers.checkpoints", "processor_config.json"),
    "ecamp": ("ECAMP", "litegpt.modeling_towers.ecamp_checkpoints", "preprocessor_config.json"),
    "radiograph_classifier": (
        "radiograph classifier",
        "litegpt.modeling_towers.classifier_checkpoints",
        "processor_config.json",
    ),
}
# What belongs to a checkpoint or an adapter: no pickles, no state of a trainer. All but the weights are small.
SMALL_FILES = ("*.json", "*.jinja", "*.py", "*.model", "*.txt")
MODEL_FILES = ("*.safetensors", *SMALL_FILES)
DATA_FILES = ("data/*.parquet", "manifest.csv", "summary.csv", "duplicates.csv", "preparation.json")
# Parts of the names of licences that everybody signs for themselves: PhysioNet's, Stanford's, contests' at Kaggle.
SIGNED_LICENCES = ("physionet", "credentialed", "research-use-agreement", "competition-rules")
# Left over from an earlier push these would be loaded in place of, or beside, the new ones.
REPLACED_FILES = ("model*.safetensors", "model.safetensors.index.json", "data/*.parquet")


@program
def main(args: PushArguments) -> None:
    with refuse_bad_input():
        repo_type, card, files = contents(args)
        page = page_files(args)
        if args.space_dir is not None:
            write_space(page, Path(args.space_dir))
            print(f"{args.space_dir}: {len(page)} files; python {args.space_dir}/app.py starts the page")
            return
    try:
        push(args, repo_type, card, files)
        if args.space is not None:
            push_space(page, args.space, args.private)
    # The last one is what the client makes of a lost connection while a file is sent.
    except (HTTPError, RuntimeError) as error:
        raise Refusal(f"{args.repo_id}: {hub_reason(error)}. The same command resumes from here.") from None
    except ValueError as error:
        raise Refusal(str(error).strip()) from None


def hub_reason(error: Exception) -> str:
    """Why a call of the Hub failed, in a clause without its full stop."""
    return str(error.__cause__ or error).strip().splitlines()[0].rstrip(".")


def contents(args: PushArguments) -> tuple[str, str, dict[str, Path | bytes]]:
    """What is pushed: the kind of repository, the card's text, and {path in the repository: file or bytes}.

    Raises:
        OSError, ValueError: the folder cannot be pushed, with the reason.
    """
    folder = Path(args.folder)
    kind = kind_of(folder)
    if args.base_model is not None and kind != "adapter":
        raise ValueError(f"base_model is for an adapter, and {folder} holds something else ({kind}).")
    if args.metrics is not None and kind != "checkpoint":
        raise ValueError(f"metrics are for a checkpoint, and {folder} holds something else ({kind}).")
    if kind == "data set":
        card = card_for_hub(folder)
        check_licence(folder, card, args.private)
    else:
        if kind == "checkpoint":
            model_type = check_checkpoint(folder)
            if args.metrics is not None and model_type != "litegpt":
                raise ValueError(f"metrics are for a LiteGPT, and {folder} holds a {MODEL_TYPES[model_type][0]}.")
        else:
            check_adapter(folder, args.base_model)
        card = (folder / "README.md").read_text(encoding="utf-8")
    if args.metrics is not None:
        card = with_figures(card, read_metrics(Path(args.metrics), folder), args.repo_id)
    patterns = DATA_FILES if kind == "data set" else MODEL_FILES
    files: dict[str, Path | bytes] = {
        name: folder / name
        for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if any(fnmatch(name, pattern) for pattern in patterns) and not any(map(_is_hidden, name.split("/")))
    }
    # The base's folder on this computer says nothing to others. An adapter inside a checkpoint is for that checkpoint.
    for name in [name for name in files if name.rpartition("/")[2] == "adapter_config.json"]:
        config = {**_read_json(folder / name), "base_model_name_or_path": args.base_model or args.repo_id}
        files[name] = (json.dumps(config, indent=2) + "\n").encode()
    card = for_repository(card, args.repo_id, args.base_model)
    return "dataset" if kind == "data set" else "model", card, files


def page_files(args: PushArguments) -> dict[str, Path | bytes]:
    """The files of the Space that is asked for; none where there is no such wish.

    Raises:
        ValueError: only a LiteGPT has a page.
    """
    if args.space is None and args.space_dir is None:
        return {}
    folder = Path(args.folder)
    if kind_of(folder) == "data set" or (kind_of(folder) == "checkpoint" and check_checkpoint(folder) != "litegpt"):
        raise ValueError(f"a page is for a LiteGPT, and {folder} holds something else.")
    return space_files(args.repo_id)


def kind_of(folder: Path) -> str:
    for name, kind in (
        ("config.json", "checkpoint"),
        ("adapter_config.json", "adapter"),
        ("preparation.json", "data set"),
    ):
        if (folder / name).is_file():
            return kind
    raise ValueError(f"{folder} is no checkpoint (config.json), adapter or prepared data set.")


def check_checkpoint(folder: Path) -> str:
    """The `model_type` of a checkpoint that is whole."""
    config = _read_json(folder / "config.json")
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        known = " or ".join(map(repr, MODEL_TYPES))
        raise ValueError(f"{folder / 'config.json'}: model_type is {model_type!r}, not {known}.")
    pipelines = [pipeline["impl"] for pipeline in config.get("custom_pipelines", {}).values()]
    references = [*config.get("auto_map", {}).values(), *pipelines]
    code = {f"{reference.partition('.')[0]}.py" for reference in references}
    index = folder / "model.safetensors.index.json"
    weights = set(_read_json(index)["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    processor_file = MODEL_TYPES[model_type][2]
    _check_files(folder, {"README.md", processor_file, *code, *weights})
    if not code:
        raise ValueError(f"{folder / 'config.json'} names no code (auto_map), so that nobody could load it.")
    return model_type


def check_adapter(folder: Path, base_model: str | None) -> None:
    if base_model is None:
        raise ValueError(f"{folder} is an adapter: name the repository of its base with --base_model.")
    _check_files(folder, {"README.md", "adapter_model.safetensors"})


def check_licence(folder: Path, card: str, private: bool) -> None:
    """Refuses a data set that its licence forbids to share.

    A private repository is left to its owner to answer for: all who can see it may have signed the licence. But
    reports of credentialed data never travel: whoever signed the licence downloads them from their publisher.
    """
    licence = DatasetCard(card).data.get("license_name")
    if licence is None:
        raise ValueError(f"{folder / 'README.md'} does not say under what licence the data set stands (license_name).")
    signed = any(words in licence for words in SIGNED_LICENCES)
    if signed and holds_reports(folder, card):
        raise ValueError(
            f"{folder} holds reports under {licence}, which are never passed on, not even to a private repository."
        )
    if "nd" in licence.split("-") and not private:
        raise ValueError(
            f"{folder} stands under {licence}, and its pictures were changed (scaled), which may not be shared: "
            "it can only be pushed with --private true."
        )
    if signed and not private:
        raise ValueError(
            f"{folder} stands under {licence}, which forbids sharing it: it can only be pushed with --private true."
        )


def holds_reports(folder: Path, card: str) -> bool:
    """Whether a prepared data set has columns of reports' text, as its card or any of its shards says.

    Questions and chats count too: under such a licence they were made of reports.
    """
    columns = {feature["name"] for feature in DatasetCard(card).data["dataset_info"]["features"]}
    for path in (folder / "data").glob("*.parquet"):
        columns.update(pq.read_schema(path).names)
    return any(column.startswith("report_") or column in (*REPORT_TEXTS, "qa", "chat") for column in columns)


def read_metrics(path: Path, folder: Path) -> dict[str, Any]:
    """`metrics.json`, if it was measured on the weights in `folder`."""
    metrics = _read_json(path)
    if "data_set" not in metrics or "weights" not in metrics:
        raise ValueError(f"{path} does not say what was evaluated: run evaluate_litegpt.py again.")
    check_metrics(metrics, path)
    if metrics["weights"] != weights_sha256(folder):
        raise ValueError(f"{path} was measured on other weights than those in {folder}.")
    return metrics


def push(args: PushArguments, repo_type: str, card: str, files: dict[str, Path | bytes]) -> None:
    """Makes the repository if it does not exist, sends what it lacks, commits, and tags.

    Raises:
        ValueError: the repository is public and should not be, has the tag already, or the Hub refuses the card.
        HTTPError, RuntimeError: the Hub refused, or the connection was lost.
    """
    api = HfApi()
    api.create_repo(args.repo_id, repo_type=repo_type, private=args.private, exist_ok=True)
    if args.private and not api.repo_info(args.repo_id, repo_type=repo_type).private:
        raise ValueError(f"{args.repo_id} exists and is public; make it private or choose another name.")
    tags = {tag.name for tag in api.list_repo_refs(args.repo_id, repo_type=repo_type).tags}
    if args.tag in tags:
        raise ValueError(f"{args.repo_id} has a tag {args.tag} already; choose another one.")

    additions = [CommitOperationAdd("README.md", card.encode())]
    additions += [CommitOperationAdd(name, file) for name, file in files.items()]
    for addition in additions:
        if addition.path_in_repo.endswith((".safetensors", ".parquet")):
            # Each is whole on the Hub before the next one is sent: so much an interruption cannot undo.
            api.preupload_lfs_files(args.repo_id, [addition], repo_type=repo_type)
    stale = [
        CommitOperationDelete(name)
        for name in api.list_repo_files(args.repo_id, repo_type=repo_type)
        if name not in files and any(fnmatch(name, pattern) for pattern in REPLACED_FILES)
    ]
    message = f"Upload {Path(args.folder).resolve().name}" + (f" as {args.tag}" if args.tag else "")
    commit = api.create_commit(args.repo_id, [*additions, *stale], commit_message=message, repo_type=repo_type)
    if args.tag is not None:
        api.create_tag(args.repo_id, tag=args.tag, revision=commit.oid, repo_type=repo_type)
    print(f"{commit.commit_url}: {len(additions)} files" + (f", tag {args.tag}" if args.tag else ""))


def _is_hidden(part: str) -> bool:
    return part.startswith(".")


def _check_files(folder: Path, names: set[str]) -> None:
    """Raises where a file is missing, or holds weights that are cut off."""
    for name in sorted(names):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}.")
        if name.endswith(".safetensors"):
            try:
                with safe_open(folder / name, framework="np"):
                    pass
            except SafetensorError as error:
                raise ValueError(f"{folder / name} is damaged: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


if __name__ == "__main__":
    main(*parse([PushArguments], None, "push_to_hub.py", __doc__))
