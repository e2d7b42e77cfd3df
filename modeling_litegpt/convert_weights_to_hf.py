"""Published weights -> a LiteGPT checkpoint that is ready for use, training and the Hub.

To start training as the paper does, with the towers of BiomedCLIP and PubMedCLIP, Llama 2-Chat, and LoRA and the
projector's last layer of MiniGPT-v2 (stage 3):

    litegpt convert --architecture litegpt \\
        --biomedclip open_clip_pytorch_model.bin --pubmedclip pubmed-clip-vit-base-patch32 \\
        --llama Llama-2-7b-chat-hf --minigpt_v2 checkpoint_stage3.pth --output_dir outputs/litegpt

LiteGPT's own release takes MiniGPT-v2's place:

    litegpt convert --architecture litegpt \\
        --biomedclip open_clip_pytorch_model.bin --pubmedclip pubmed-clip-vit-base-patch32 \\
        --llama Llama-2-7b-chat-hf --litegpt release.pth --output_dir outputs/litegpt

MiniGPT-v2 itself, a baseline of the paper:

    litegpt convert --architecture minigpt_v2 --eva_clip eva_vit_g.pth \\
        --llama Llama-2-7b-chat-hf --minigpt_v2 checkpoint_stage3.pth --output_dir outputs/minigpt_v2

Nothing is downloaded. Tensors go from the published files to the checkpoint's shards one by one; the model is never
built in memory. What was loaded, left out and freshly initialised is printed and written to `conversion.json`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from litegpt.common.arguments import parse
from litegpt.common.files import give_usual_permissions, refuse_filled_folder, replacing_folder
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES
from litegpt.modeling_litegpt.arguments import ConversionArguments
from litegpt.modeling_litegpt.checkpoints import new_processor, prepare_for_hub, save_processor_and_card
from litegpt.modeling_litegpt.model_card import adapter_card
from litegpt.modeling_litegpt.new_tasks import pieces_of_new_tokens, with_new_rows
from litegpt.modeling_litegpt.published_weights import (
    LANGUAGE_MODEL,
    PROJECTOR,
    PublishedTensor,
    biomedclip_tower,
    clip_tower,
    eva_clip_tower,
    llama,
    lora_and_projector,
)
from litegpt.modeling_litegpt.shard_writer import EMBEDDINGS, ShardWriter, bytes_of
from litegpt.processing.processing_litegpt import VISUAL_TOKEN

CONFIGS = Path(__file__).with_name("configs")
LORA_ALPHA = 16  # of MiniGPT-v2 and of LiteGPT; the files do not say it
LORA_OPTIONS = ("minigpt_v2", "litegpt")
TOWER_OPTIONS = {"vit": "biomedclip", "clip_vision_model": "pubmedclip", "blip_2_vision_model": "eva_clip"}


@dataclass
class Source:
    """One published file (or folder): the tensors it has, and the names that it must fill completely."""

    option: str
    path: Path
    prefixes: tuple[str, ...]
    tensors: Iterator[PublishedTensor]


@program
def main(arguments: ConversionArguments) -> None:
    with refuse_bad_input():
        report = convert(arguments)
    print_report(report, arguments.output_dir)


def convert(arguments: ConversionArguments) -> dict:
    """Writes the checkpoint and returns what `conversion.json` says.

    Raises:
        OSError, ValueError: a file is missing or damaged, or has a tensor too many, too few or of another shape.
    """
    output_dir, llama_dir = Path(arguments.output_dir), Path(arguments.llama)
    refuse_filled_folder(output_dir)
    if not llama_dir.is_dir():
        raise FileNotFoundError(f"{llama_dir}: there is no such folder")
    text_config = AutoConfig.from_pretrained(llama_dir)
    tokenizer = AutoTokenizer.from_pretrained(llama_dir)
    pieces = pieces_of_new_tokens(tokenizer)
    published_rows = text_config.vocab_size
    if min(pieces) < published_rows:
        raise ValueError(
            f"{llama_dir}: its tokenizer knows {min(pieces)} tokens, but its weights have {published_rows} rows"
        )
    # Tensor cores and tensor parallelism want a vocabulary that is a multiple of 8.
    text_config.vocab_size = -(-max(published_rows, len(tokenizer)) // 8) * 8
    text_config.pad_token_id = tokenizer.pad_token_id
    new_rows = [pieces.get(row, [tokenizer.unk_token_id]) for row in range(published_rows, text_config.vocab_size)]

    config = architecture(arguments.architecture, text_config, tokenizer.convert_tokens_to_ids(VISUAL_TOKEN))
    if arguments.litegpt is not None:
        # The release was trained so. With EVA-CLIP-g the norm is the last one within `Blip2VisionModel`.
        config.normalize_patch_features = config.vision_config.model_type != "blip_2_vision_model"
    with torch.device("meta"):
        model = LiteGPTForConditionalGeneration(config)
    sources = sources_of(arguments, config)
    config.base_models = [source.option for source in sources]  # for the model card
    dtype = None if arguments.dtype is None else getattr(torch, arguments.dtype)

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(output_dir) as folder:
        folder.mkdir()
        writer = ShardWriter(folder, model, bytes_of(arguments.max_shard_size), dtype)
        report = {"architecture": arguments.architecture, "sources": []}
        lora: dict[str, torch.Tensor] = {}
        for source in sources:
            report["sources"].append(stream(source, writer, lora, new_rows, arguments))
        report["lora"] = None if not lora else "merged" if arguments.merge_lora else "adapter"
        report["fresh"] = [name for name in writer.expected if name not in writer.shard_of]
        for name, tensor in fresh_tensors(model, report["fresh"], arguments.seed):
            writer.add(name, tensor)
        report["new_tokens"] = {
            tokenizer.convert_ids_to_tokens(row): tokenizer.convert_ids_to_tokens(ids) for row, ids in pieces.items()
        }

        config.text_config.dtype = writer.language_model_dtype
        model.to(writer.language_model_dtype)
        processor = new_processor(config, tokenizer, FINDING_LABELS, DIAGNOSIS_LABELS)
        if arguments.litegpt is not None:
            processor.windowing = "paper"  # as the release was trained
        prepare_for_hub(model, processor)
        model.save_pretrained(folder, state_dict={})  # configurations and code; the weights are the writer's
        writer.finish()
        if report["lora"] == "adapter":
            adapter = save_adapter(lora, folder / "adapter", output_dir)
            (folder / "adapter" / "README.md").write_text(adapter_card(config, processor, adapter), encoding="utf-8")
        save_processor_and_card(model, processor, folder)
        (folder / "conversion.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return report


def stream(
    source: Source,
    writer: "ShardWriter",
    lora: dict[str, torch.Tensor],
    new_rows: list[list[int]],
    arguments: ConversionArguments,
) -> dict:
    """Hands a source's tensors to the writer; LoRA goes into `lora`, or from there into the weights.

    Returns:
        The source's part of the report.

    Raises:
        ValueError: a tensor is unexpected, of another shape, or missing.
    """
    loaded, left_out = [], []
    for key, name, tensor in source.tensors:
        if name is None or any(fnmatchcase(key, pattern) for pattern in arguments.skip_keys):
            left_out.append(key)
            continue
        loaded.append(key)
        if source.option in LORA_OPTIONS and name.startswith(LANGUAGE_MODEL) and ".lora_" in name:
            lora[name] = tensor
            continue
        if name not in writer.expected or not name.startswith(source.prefixes):
            raise ValueError(f"{source.path}: unexpected tensor '{key}' of shape {tuple(tensor.shape)}")
        shape = writer.expected[name]
        if name in (EMBEDDINGS, "lm_head.weight"):
            shape = torch.Size((shape[0] - len(new_rows), shape[1]))
        if tensor.shape != shape:
            raise ValueError(f"{source.path}: '{key}' has shape {tuple(tensor.shape)}, the model wants {tuple(shape)}")
        if name in (EMBEDDINGS, "lm_head.weight"):
            tensor = with_new_rows(tensor, new_rows)
        writer.add(name, merged(name, tensor, lora, writer.dtype) if arguments.merge_lora else tensor)

    missing = [name for name in writer.expected if name.startswith(source.prefixes) and name not in writer.shard_of]
    if missing:
        raise ValueError(f"{source.path}: lacks {len(missing)} tensors that the model needs, such as {missing[0]}")
    if source.option in LORA_OPTIONS:
        check_lora(source.path, lora, writer.expected)
    return {"option": source.option, "name": source.path.name, "loaded": loaded, "left_out": left_out}


def architecture(name: str, text_config: PreTrainedConfig, image_token_id: int) -> LiteGPTConfig:
    """The configuration of that name in `configs/`, or of that file, around the language model."""
    path = CONFIGS / f"{name}.json"
    path = path if path.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(config.stem for config in CONFIGS.glob("*.json")))
        raise ValueError(f"--architecture {name}: is neither one of {known} nor a file")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values.pop("model_type", None)
        return LiteGPTConfig(**{**values, "text_config": text_config, "image_token_id": image_token_id})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def sources_of(arguments: ConversionArguments, config: LiteGPTConfig) -> list[Source]:
    """The published files in the order of reading: LoRA before the language model that it may be merged into.

    Raises:
        ValueError: the architecture needs a file that was not given, or has no use for one that was.
    """
    if arguments.minigpt_v2 is not None and arguments.litegpt is not None:
        raise ValueError("--minigpt_v2 and --litegpt: the release replaces all that MiniGPT-v2's file has; give one")
    sources = []
    if arguments.minigpt_v2 is not None:
        path = Path(arguments.minigpt_v2)
        sources.append(Source("minigpt_v2", path, (PROJECTOR + "linear_2.",), lora_and_projector(path)))
    if arguments.litegpt is not None:
        path = Path(arguments.litegpt)
        sources.append(Source("litegpt", path, (PROJECTOR,), lora_and_projector(path)))

    towers = dict(zip(("model.vision_tower.", "model.aux_vision_tower."), config.tower_configs, strict=False))
    for prefix, tower in towers.items():
        option = TOWER_OPTIONS.get(tower.model_type)
        if option is None:
            raise ValueError(f"--architecture: no published format is known for a tower of type {tower.model_type}")
        if getattr(arguments, option) is None:
            raise ValueError(f"--{option}: is missing, the architecture has such a tower")
        path, prefixes = Path(getattr(arguments, option)), (prefix,)
        if option == "biomedclip":
            tensors = biomedclip_tower(path, prefix)
        elif option == "pubmedclip":
            tensors = clip_tower(path, prefix)
        else:
            num_patches = (tower.image_size // tower.patch_size) ** 2
            tensors = eva_clip_tower(path, prefix, tower.num_hidden_layers, num_patches)
            # MiniGPT-v2 never trained the norm after the tower: it has no weights in any file.
            prefixes = (prefix + "embeddings.", prefix + "encoder.")
        sources.append(Source(option, path, prefixes, tensors))
    unused = {option for option in TOWER_OPTIONS.values() if getattr(arguments, option) is not None}
    unused -= {source.option for source in sources}
    if unused:
        raise ValueError(f"--{min(unused)}: the architecture has no such tower")

    path = Path(arguments.llama)
    sources.append(Source("llama", path, (LANGUAGE_MODEL, "lm_head."), llama(path)))
    return sources


def merged(
    name: str, weight: torch.Tensor, lora: dict[str, torch.Tensor], dtype: torch.dtype | None = None
) -> torch.Tensor:
    """W + (alpha / r) B A, rounded once to `dtype` (None: W's); W itself where LoRA does not adapt it."""
    layer = name.removesuffix(".weight")
    if f"{layer}.lora_A.weight" not in lora:
        return weight
    lora_a, lora_b = (lora[f"{layer}.lora_{part}.weight"].float() for part in "AB")
    return torch.addmm(weight.float(), lora_b, lora_a, alpha=LORA_ALPHA / len(lora_a)).to(dtype or weight.dtype)


def check_lora(path: Path, lora: dict[str, torch.Tensor], expected: dict[str, torch.Size]) -> None:
    """Raises ValueError unless LoRA adapts q_proj and v_proj of every layer, with one rank and fitting shapes."""
    adapted = [
        name for name in expected if name.startswith(LANGUAGE_MODEL) and re.search(r"\.(q|v)_proj\.weight$", name)
    ]
    rank = len(next((tensor for name, tensor in lora.items() if ".lora_A." in name), ()))
    shapes = {}
    for name in adapted:
        rows, columns = expected[name]
        layer = name.removesuffix(".weight")
        shapes |= {f"{layer}.lora_A.weight": (rank, columns), f"{layer}.lora_B.weight": (rows, rank)}
    for name in sorted(shapes.keys() | lora.keys()):
        if name not in lora:
            raise ValueError(f"{path}: has no LoRA for {name}")
        if name not in shapes:
            raise ValueError(f"{path}: has LoRA that the architecture has no place for: {name}")
        if tuple(lora[name].shape) != shapes[name]:
            raise ValueError(f"{path}: {name} has shape {tuple(lora[name].shape)}, not {shapes[name]}")


def save_adapter(lora: dict[str, torch.Tensor], folder: Path, base: Path) -> LoraConfig:
    """Writes LoRA as PEFT saves it; `PeftModel.from_pretrained(model, folder)` loads it."""
    rank = len(next(tensor for name, tensor in lora.items() if ".lora_A." in name))
    adapter = LoraConfig(
        r=rank,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.05,
        target_modules=LORA_TARGET_MODULES,
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base),
    )
    adapter.save_pretrained(folder)
    tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in lora.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    give_usual_permissions(folder / "adapter_model.safetensors")
    return adapter


def fresh_tensors(
    model: LiteGPTForConditionalGeneration, names: list[str], seed: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Float32 tensors of those names, initialised as a new model's are; `model` may be on the meta device."""
    torch.manual_seed(seed)
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in names):
        module = model.get_submodule(layer).to_empty(device="cpu").float()
        model._init_weights(module)
        for name, tensor in module.state_dict(prefix=f"{layer}.").items():
            if name in names:
                yield name, tensor


def print_report(report: dict, output_dir: str) -> None:
    for source in report["sources"]:
        print(f"{source['option']} ({source['name']}): {len(source['loaded'])} tensors loaded")
        left_out = Counter(re.sub(r"\.\d+\.", ".N.", key) for key in source["left_out"])
        for key, count in left_out.items():
            print(f"    left out: {key}" + (f" ({count})" if count > 1 else ""))
    if report["lora"] is not None:
        print("LoRA: " + ("merged into the language model" if report["lora"] == "merged" else f"{output_dir}/adapter"))
    for name in report["fresh"]:
        print(f"fresh, in no file: {name}")
    for token, pieces in report["new_tokens"].items():
        print(f"new token {token}: mean of {' '.join(pieces)}")
    print(f"{output_dir}: ready; the whole list is in conversion.json")


if __name__ == "__main__":
    main(*parse([ConversionArguments], None, "convert_weights_to_hf.py", __doc__))
