"""Puts the current code into an existing checkpoint or adapter, whose weights stay as they are.

    litegpt refresh --folder outputs/demo/checkpoint
    hf auth login
    litegpt refresh --repo_id acme/litegpt
    litegpt refresh --repo_id somebody/litegpt --create_pr true

A checkpoint, of a LiteGPT, a CXR-CLIP, an ECAMP or a radiograph classifier, carries its code with it, and a release
of transformers that is newer than the code can break it. Written anew are the code files, where `config.json` and
`processor_config.json` point to them, and what `generate` does unless it is told otherwise. The chat template only
where the checkpoint's own prompts keep their tokens. Of a repository on the Hub the small files alone are fetched, and
what has changed goes up in one commit. The same command again changes nothing more.
"""

import json
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from transformers.dynamic_module_utils import get_relative_import_files

from litegpt.common.arguments import parse
from litegpt.common.files import replacing
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.hub.arguments import RefreshArguments
from litegpt.hub.push_to_hub import MODEL_TYPES, SMALL_FILES, hub_reason
from litegpt.modeling_litegpt.checkpoints import GENERATION_DEFAULTS
from litegpt.processing import processing_litegpt
from litegpt.processing.tasks import TASKS


@program
def main(args: RefreshArguments) -> None:
    if (args.folder is None) == (args.repo_id is None):
        raise Refusal("Give either --folder or --repo_id.")
    with refuse_bad_input():
        if args.folder is not None:
            changes = refreshed_files(Path(args.folder))
            for name, content in changes.items():
                with replacing(Path(args.folder, name)) as temporary:
                    temporary.write_bytes(content)
            print(f"{args.folder}: {_told(changes)}")
        else:
            refresh_repository(args)


def refresh_repository(args: RefreshArguments) -> None:
    """Fetches a repository's small files, and commits what changes of them."""
    api = HfApi()
    try:
        # What is committed must not undo what somebody else pushes meanwhile.
        commit = api.repo_info(args.repo_id, revision=args.revision).sha
        with tempfile.TemporaryDirectory() as folder:
            snapshot_download(args.repo_id, revision=commit, allow_patterns=SMALL_FILES, local_dir=folder)
            changes = refreshed_files(Path(folder), name=args.repo_id)
        if changes:
            api.create_commit(
                args.repo_id,
                [CommitOperationAdd(name, content) for name, content in changes.items()],
                commit_message="Refresh the code",
                revision=args.revision,
                parent_commit=commit,
                create_pr=args.create_pr,
            )
    except (HTTPError, LocalEntryNotFoundError) as error:
        reason = hub_reason(error)
        raise Refusal(f"{args.repo_id}: {reason}. Nothing was changed; give the same command again.") from None
    print(f"{args.repo_id}: {_told(changes)}")


def refreshed_files(folder: Path, name: str | None = None) -> dict[str, bytes]:
    """The files of a checkpoint or an adapter that change: {name: new content}.

    Args:
        name: for messages; the folder by default.

    Raises:
        ValueError: it is no checkpoint of `MODEL_TYPES`, nor the adapter of a LiteGPT, or a file is damaged.
    """
    name = name or str(folder)
    is_adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
    config = {} if is_adapter else _read(folder / "config.json", name)
    model_type = "litegpt" if is_adapter else config.get("model_type")
    if model_type not in MODEL_TYPES:
        known = " or ".join(called for called, *_ in MODEL_TYPES.values())
        raise ValueError(f"{name} is no {known} checkpoint: its config.json has another model_type.")
    of_today = _checkpoints(model_type)
    configurations = {}
    if (code := of_today.AUTO_MAP.get("AutoProcessor")) is not None:
        processor = _read(folder / "processor_config.json", name)
        if processor.get("processor_class") not in (None, code.rpartition(".")[2]):
            raise ValueError(f"{name} has a processor of another kind, {processor['processor_class']}.")
        configurations["processor_config.json"] = processor, processor | {"auto_map": {"AutoProcessor": code}}

    files = {path.name: path.read_bytes() for path in code_files(model_type, processor_alone=is_adapter)}
    answers = model_type == "litegpt"  # in words, to a prompt
    if not is_adapter:
        today = {"auto_map": of_today.AUTO_MAP}
        if of_today.CUSTOM_PIPELINES:
            today["custom_pipelines"] = of_today.CUSTOM_PIPELINES
        configurations["config.json"] = config, config | today
        if answers and (folder / "generation_config.json").is_file():
            generation = _read(folder / "generation_config.json", name)
            configurations["generation_config.json"] = generation, GENERATION_DEFAULTS | generation
    for file, (present, wanted) in configurations.items():
        if wanted != present:  # by value: how a file is laid out says nothing
            files[file] = (json.dumps(wanted, indent=2, ensure_ascii=False) + "\n").encode()
    if answers and (folder / "chat_template.jinja").is_file():
        if (template := _new_chat_template(folder)) is not None:
            files["chat_template.jinja"] = template.encode()
    return {file: text for file, text in files.items() if not _has(folder / file, text)}


def code_files(model_type: str = "litegpt", processor_alone: bool = False) -> list[Path]:
    """The code that travels with a checkpoint, or with an adapter."""
    checkpoints = _checkpoints(model_type)
    modeling, processing = Path(checkpoints.__file__).parent, Path(processing_litegpt.__file__).parent
    references = {"AutoProcessor": processing} | ({} if processor_alone else {"AutoModel": modeling})
    auto_map = checkpoints.AUTO_MAP
    files = [place / _file(auto_map[auto]) for auto, place in references.items() if auto in auto_map]
    imported = [imported for file in files for imported in get_relative_import_files(str(file))]
    return sorted({Path(file).resolve() for file in [*files, *imported]})


def _checkpoints(model_type: str) -> ModuleType:
    """The module that saves such checkpoints, with their `AUTO_MAP` and `CUSTOM_PIPELINES`."""
    return import_module(MODEL_TYPES[model_type][1])


def _file(reference: str) -> str:
    return f"{reference.partition('.')[0]}.py"


def _new_chat_template(folder: Path) -> str | None:
    """Today's template, where it writes the tokens of the checkpoint's own prompts as the present one does."""
    processor = processing_litegpt.LiteGPTProcessor.from_pretrained(folder)
    trained_on = _prompts(processor, processor.chat_template)
    for template in (processing_litegpt.CHAT_TEMPLATE, processing_litegpt.CHAT_TEMPLATE_WITHOUT_SPACE):
        if _prompts(processor, template) == trained_on:
            return template
    print("The chat template stays: in today's the prompts that this checkpoint was trained on have other tokens.")
    return None


def _prompts(processor: processing_litegpt.LiteGPTProcessor, template: str) -> list[list[int]]:
    """The tokens of the prompts of all tasks, in a chat template; what they are about changes no template."""
    processor.chat_template = template
    alone = [task for task in processor.instructions if task not in TASKS or TASKS[task].about is None]
    texts = [processor.prompt(task) for task in alone]
    return [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def _has(file: Path, content: bytes) -> bool:
    return file.is_file() and file.read_bytes() == content


def _told(changes: dict[str, bytes]) -> str:
    return f"written anew: {', '.join(sorted(changes))}" if changes else "the code is today's already"


def _read(file: Path, name: str) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{name} is no checkpoint or adapter: it has no {file.name}.") from None
    except ValueError as error:
        raise ValueError(f"{name}: {file.name} is no JSON ({error}).") from None


if __name__ == "__main__":
    main(*parse([RefreshArguments], None, "refresh_checkpoint.py", __doc__))
