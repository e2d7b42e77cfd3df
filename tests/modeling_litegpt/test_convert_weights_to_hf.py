import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
)

from litegpt.modeling_litegpt import convert_weights_to_hf
from litegpt.modeling_litegpt.arguments import ConversionArguments
from litegpt.modeling_litegpt.convert_weights_to_hf import convert, main
from litegpt.modeling_litegpt.shard_writer import bytes_of
from tests.vit_weights import vit_weights

WIDTH, LAYERS, RANK, TEXT_WIDTH, PROJECTOR_WIDTH = 32, 2, 4, 48, 40
Q_PROJ = "model.language_model.layers.1.self_attn.q_proj"


def randn(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape)


def write_biomedclip(file: Path) -> None:
    """A tower of 64 patches of 8 x 8 pixels under open_clip's keys, with what else the file has."""
    weights = vit_weights(WIDTH, 64, blocks=1, patch=8, positions=65, fused_bias=True)
    others = {"visual.head.proj.weight": randn(16, WIDTH), "logit_scale": torch.tensor(4.6)}
    others |= {"text.proj.0.weight": randn(4, 4), "text.transformer.embeddings.word_embeddings.weight": randn(9, 4)}
    torch.save({**{f"visual.trunk.{key}": tensor for key, tensor in weights.items()}, **others}, file)


def write_eva_clip(file: Path) -> None:
    """Two blocks, of which one is used, and 16 positions, which become 64; in half precision."""
    weights = vit_weights(WIDTH, 64, blocks=2, patch=8, positions=17, fused_bias=False)
    weights["head.weight"] = randn(3, WIDTH)
    torch.save({key: tensor.half() for key, tensor in weights.items()}, file)


def write_pubmedclip(folder: Path) -> None:
    tower = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config={**tower, "image_size": 64, "patch_size": 16}, text_config=tower)
    CLIPModel(config).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_llama(folder: Path) -> None:
    """A language model in half precision and several shards, with a tokenizer of Llama's kind."""
    tokenizer = llama_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).half().save_pretrained(folder, max_shard_size="60KB")
    tokenizer.save_pretrained(folder)


def llama_tokenizer() -> LlamaTokenizer:
    """Knows bytes, letters and the pieces of `[identify]` and `<Img>`, as Llama's does."""
    pieces = ["▁[", "ident", "ify", "▁<", "▁</", "Img"]
    steps = [piece[:end] for piece in pieces for end in range(2, len(piece) + 1)]
    merges = list(dict.fromkeys((step[:-1], step[-1]) for step in steps))
    characters = sorted(
        {character for piece in pieces for character in piece} | set("abcdefghijklmnopqrstuvwxyz<>[]/ .")
    )
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters, *steps]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return LlamaTokenizer(vocab=vocabulary, merges=merges)


def lora_of(language_model: str, default: str) -> dict[str, torch.Tensor]:
    shapes = {"A": (RANK, TEXT_WIDTH), "B": (TEXT_WIDTH, RANK)}
    return {
        f"{language_model}.base_model.model.model.layers.{layer}.self_attn.{part}_proj.lora_{ab}{default}.weight": (
            3 * randn(*shapes[ab])
        )
        for layer in range(LAYERS)
        for part in "qv"
        for ab in "AB"
    }


def write_minigpt_v2(file: Path, projector_width: int = PROJECTOR_WIDTH) -> None:
    model = lora_of("llama_model", "")
    model |= {"llama_proj.weight": randn(TEXT_WIDTH, projector_width), "llama_proj.bias": randn(TEXT_WIDTH)}
    model["llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(12)
    torch.save(
        {"model": model, "optimizer": {"state": {0: {"step": 3}}}, "config": {}, "scaler": {}, "epoch": 9}, file
    )


def write_release(file: Path) -> None:
    model = lora_of("language_model", ".default")
    model |= {
        "language_proj.0.weight": randn(PROJECTOR_WIDTH, 5 * WIDTH),
        "language_proj.0.bias": randn(PROJECTOR_WIDTH),
    }
    model |= {"language_proj.2.weight": randn(TEXT_WIDTH, PROJECTOR_WIDTH), "language_proj.2.bias": randn(TEXT_WIDTH)}
    model |= {"visual_encoder.pubmed.embeddings.position_ids": torch.arange(17), "audio_language_proj.bias": randn(3)}
    model["language_model.base_model.model.model.layers.0.mlp.up_proj.SCB"] = torch.ones(64)
    torch.save({"model": model, "epoch": 2}, file)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """All published files in their real formats, tiny and random, and two architectures of those sizes."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    write_biomedclip(folder / "open_clip_pytorch_model.bin")
    write_eva_clip(folder / "eva_vit_g.pth")
    write_pubmedclip(folder / "pubmedclip")
    write_llama(folder / "llama")
    write_minigpt_v2(folder / "checkpoint_stage3.pth")
    write_minigpt_v2(folder / "checkpoint_stage3_eva.pth", 4 * WIDTH)
    write_release(folder / "release.pth")
    tower = {
        "image_size": 64,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    configs = convert_weights_to_hf.CONFIGS
    two_towers = json.loads((configs / "litegpt.json").read_text()) | {"projector_hidden_size": PROJECTOR_WIDTH}
    two_towers["vision_config"] |= {**tower, "patch_size": 8}
    two_towers["aux_vision_config"] |= {**tower, "patch_size": 16}
    (folder / "two_towers.json").write_text(json.dumps(two_towers))
    minigpt_v2 = json.loads((configs / "minigpt_v2.json").read_text())
    minigpt_v2["vision_config"] |= {**tower, "patch_size": 8}
    (folder / "minigpt_v2.json").write_text(json.dumps(minigpt_v2))
    return folder


@pytest.fixture
def arguments(published, tmp_path) -> ConversionArguments:
    """Two towers, with LoRA and the projector's last layer of MiniGPT-v2."""
    return ConversionArguments(
        architecture=str(published / "two_towers.json"),
        biomedclip=str(published / "open_clip_pytorch_model.bin"),
        pubmedclip=str(published / "pubmedclip"),
        llama=str(published / "llama"),
        minigpt_v2=str(published / "checkpoint_stage3.pth"),
        output_dir=str(tmp_path / "checkpoint"),
        max_shard_size="100KB",
    )


def weights_of(folder: str | Path) -> dict[str, torch.Tensor]:
    return {key: tensor for file in Path(folder).glob("*.safetensors") for key, tensor in load_file(file).items()}


def llama_weights(published: Path) -> dict[str, torch.Tensor]:
    names = {"model.": "model.language_model.", "lm_head.": "lm_head."}
    weights = weights_of(published / "llama")
    return {names[key[: key.index(".") + 1]] + key[key.index(".") + 1 :]: tensor for key, tensor in weights.items()}


def loaded(folder: str, **kwargs):
    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **kwargs
    )
    assert not any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval(), AutoProcessor.from_pretrained(folder, trust_remote_code=True)


def test_a_checkpoint_with_lora_merged_loads_and_answers(arguments, published, radiographs):
    report = convert(arguments)
    ours, theirs = weights_of(arguments.output_dir), llama_weights(published)
    lora = torch.load(published / "checkpoint_stage3.pth")["model"]

    assert len(list(Path(arguments.output_dir).glob("model-*-of-*.safetensors"))) > 2
    for name, tensor in theirs.items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            key = "llama_model.base_model." + name.replace("language_model.", "model.").removesuffix("weight")
            update = lora[f"{key}lora_B.weight"] @ lora[f"{key}lora_A.weight"] * 16 / RANK
            assert torch.equal(ours[name], (tensor.float() + update).half()) and not torch.equal(ours[name], tensor)
        else:
            assert torch.equal(ours[name][: len(tensor)], tensor)
    assert torch.equal(ours["model.multi_modal_projector.linear_2.weight"], lora["llama_proj.weight"])
    assert torch.equal(ours["model.multi_modal_projector.linear_2.bias"], lora["llama_proj.bias"])
    assert report["lora"] == "merged" and not (Path(arguments.output_dir) / "adapter").exists()

    model, processor = loaded(arguments.output_dir)
    assert model.dtype == torch.float16 and not model.config.normalize_patch_features
    assert (model.config.num_visual_tokens, model.config.text_config.vocab_size % 8) == (16, 0)
    inputs = processor(images=radiographs[0], text=processor.prompt("identify"), return_tensors="pt")
    answer = model.float().generate(**inputs, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > inputs["input_ids"].shape[1]


def test_a_new_token_starts_as_the_mean_of_the_pieces_that_the_original_tokenizer_made_of_it(arguments, published):
    report = convert(arguments)
    original = LlamaTokenizer.from_pretrained(published / "llama")
    tokenizer = AutoProcessor.from_pretrained(arguments.output_dir, trust_remote_code=True).tokenizer
    ours, theirs = weights_of(arguments.output_dir), llama_weights(published)
    pieces = {
        "[identify]": ["▁[", "ident", "ify", "]"],
        "<image>": ["▁<", "Img", ">"],
        "</image>": ["▁</", "Img", ">"],
        "[vqa]": ["▁[", "v", "q", "a", "]"],
    }
    assert {token: report["new_tokens"][token] for token in pieces} == pieces
    assert report["new_tokens"].keys() == {
        "<pad>",
        "<image>",
        "</image>",
        "<visual>",
        "[identify]",
        "[vqa]",
        "[grounding]",
        "[refer]",
        "[describe]",
        "[report]",
        "[grounded_report]",
    }
    for weight in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        for token, texts in pieces.items():
            mean = theirs[weight][original.convert_tokens_to_ids(texts)].float().mean(0)
            assert torch.equal(ours[weight][tokenizer.convert_tokens_to_ids(token)], mean.half())
        unused = ours[weight][len(tokenizer) :]
        assert len(ours[weight]) % 8 == 0 and (unused == theirs[weight][original.unk_token_id]).all()


def test_what_no_file_has_starts_as_in_a_new_model_and_is_named(arguments, capsys):
    main(arguments)
    fresh = ["model.multi_modal_projector.linear_1.weight", "model.multi_modal_projector.linear_1.bias"]
    report = json.loads((Path(arguments.output_dir) / "conversion.json").read_text())
    assert sorted(report["fresh"]) == sorted(fresh)
    printed = capsys.readouterr().out
    assert all(f"fresh, in no file: {name}" in printed for name in fresh)
    ours = weights_of(arguments.output_dir)
    assert ours[fresh[0]].std() == pytest.approx(0.3, rel=0.1)  # the language model's initializer_range
    assert (ours[fresh[1]] == 0).all() and ours[fresh[0]].dtype == torch.float32


def test_the_report_names_every_published_key_as_loaded_or_left_out(arguments, published):
    report = {source["option"]: source for source in convert(arguments)["sources"]}
    assert list(report) == ["minigpt_v2", "biomedclip", "pubmedclip", "llama"]
    assert json.loads((Path(arguments.output_dir) / "config.json").read_text())["base_models"] == list(report)
    keys = torch.load(published / "open_clip_pytorch_model.bin").keys()
    biomedclip = report["biomedclip"]
    assert set(biomedclip["loaded"]) | set(biomedclip["left_out"]) == set(keys)
    assert "text.proj.0.weight" in biomedclip["left_out"] and "visual.trunk.norm.weight" in biomedclip["loaded"]
    assert report["minigpt_v2"]["left_out"] == [
        "llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq"
    ]


def test_an_adapter_kept_apart_gives_the_merged_models_logits(arguments, tmp_path, published):
    arguments = replace(arguments, dtype="float32")
    convert(arguments)
    apart = replace(arguments, merge_lora=False, output_dir=str(tmp_path / "apart"))
    assert convert(apart)["lora"] == "adapter"

    base, _ = loaded(apart.output_dir)
    weight = llama_weights(published)[f"{Q_PROJ}.weight"]
    assert torch.equal(base.state_dict()[f"{Q_PROJ}.weight"], weight.float())
    inputs = {"input_ids": torch.tensor([[1, 5, 9, 12, 7]])}
    with torch.no_grad():
        plain = base(**inputs).logits
        adapted = PeftModel.from_pretrained(base, Path(apart.output_dir) / "adapter")(**inputs).logits
        merged = loaded(arguments.output_dir)[0](**inputs).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-4)
    assert (plain - merged).abs().max() > 0.1
    adapter = json.loads((Path(apart.output_dir) / "adapter" / "adapter_config.json").read_text())
    assert "PEFT" in (Path(apart.output_dir) / "adapter" / "README.md").read_text()
    assert (adapter["base_model_name_or_path"], adapter["r"], adapter["lora_alpha"]) == (apart.output_dir, RANK, 16)


def test_the_release_gives_lora_and_the_whole_projector_and_normalises(arguments, published):
    release = replace(arguments, minigpt_v2=None, litegpt=str(published / "release.pth"))
    report = convert(release)
    model = torch.load(published / "release.pth")["model"]
    ours = weights_of(release.output_dir)
    for number, layer in (("0", "linear_1"), ("2", "linear_2")):
        for kind in ("weight", "bias"):
            published_tensor = model[f"language_proj.{number}.{kind}"]
            assert torch.equal(ours[f"model.multi_modal_projector.{layer}.{kind}"], published_tensor)
    key = "language_model.base_model.model.model.layers.1.self_attn.q_proj.lora_{}.default.weight"
    update = model[key.format("B")] @ model[key.format("A")] * 16 / RANK
    weight = llama_weights(published)[f"{Q_PROJ}.weight"]
    assert torch.equal(ours[f"{Q_PROJ}.weight"], (weight.float() + update).half())
    assert report["fresh"] == []
    model, processor = loaded(release.output_dir)
    assert model.config.normalize_patch_features and processor.windowing == "paper"
    assert len(report["sources"][0]["left_out"]) == 3


def test_minigpt_v2_takes_eva_clip_and_one_linear_layer(arguments, published):
    minigpt_v2 = replace(
        arguments,
        architecture=str(published / "minigpt_v2.json"),
        biomedclip=None,
        pubmedclip=None,
        eva_clip=str(published / "eva_vit_g.pth"),
        minigpt_v2=str(published / "checkpoint_stage3_eva.pth"),
    )
    report = convert(minigpt_v2)
    tower = "model.vision_tower."
    assert sorted(report["fresh"]) == [f"{tower}post_layernorm.bias", f"{tower}post_layernorm.weight"]
    ours, eva = weights_of(minigpt_v2.output_dir), torch.load(published / "eva_vit_g.pth")
    assert (ours[f"{tower}post_layernorm.weight"] == 1).all() and (ours[f"{tower}post_layernorm.bias"] == 0).all()
    assert ours[f"{tower}embeddings.position_embedding"].shape == (1, 65, WIDTH)
    bias = ours[f"{tower}encoder.layers.0.self_attn.qkv.bias"]
    assert torch.equal(bias[:WIDTH], eva["blocks.0.attn.q_bias"]) and (bias[WIDTH:-WIDTH] == 0).all()
    assert torch.equal(bias[-WIDTH:], eva["blocks.0.attn.v_bias"])
    model, _ = loaded(minigpt_v2.output_dir, dtype=torch.float32)
    assert model.model.get_image_features(torch.zeros(1, 3, 64, 64)).pooler_output[0].shape == (16, TEXT_WIDTH)


def test_pickled_shards_of_the_language_model_give_the_same_checkpoint(arguments, published, tmp_path):
    pickled = tmp_path / "llama_bin"
    shutil.copytree(published / "llama", pickled)
    index = json.loads((pickled / "model.safetensors.index.json").read_text())
    for file in pickled.glob("*.safetensors"):
        torch.save(
            load_file(file), pickled / file.name.replace("model", "pytorch_model").replace("safetensors", "bin")
        )
        file.unlink()
    index["weight_map"] = {
        key: name.replace("model", "pytorch_model").replace("safetensors", "bin")
        for key, name in index["weight_map"].items()
    }
    (pickled / "model.safetensors.index.json").unlink()
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    convert(arguments)
    again = replace(arguments, llama=str(pickled), output_dir=str(tmp_path / "again"))
    convert(again)
    one, other = weights_of(arguments.output_dir), weights_of(again.output_dir)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_published_precisions_are_kept_unless_one_is_asked_for(arguments, tmp_path):
    convert(arguments)
    kept = {name: tensor.dtype for name, tensor in weights_of(arguments.output_dir).items()}
    assert {kept["lm_head.weight"], kept["model.vision_tower.layernorm.weight"]} == {torch.float16, torch.float32}
    assert json.loads((Path(arguments.output_dir) / "config.json").read_text())["dtype"] == "float16"

    asked = replace(arguments, dtype="bfloat16", output_dir=str(tmp_path / "asked"))
    convert(asked)
    assert {tensor.dtype for tensor in weights_of(asked.output_dir).values()} == {torch.bfloat16}
    config = json.loads((Path(asked.output_dir) / "config.json").read_text())
    assert (config["dtype"], config["text_config"]["dtype"]) == ("bfloat16", "bfloat16")


def test_shards_are_no_larger_than_asked_and_the_index_finds_every_tensor(arguments):
    convert(arguments)
    folder = Path(arguments.output_dir)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    total = 0
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 100_000 or len(tensors) == 1
        assert all(index["weight_map"].pop(key) == shard.name for key in tensors)
        total += size
    assert not index["weight_map"] and index["metadata"]["total_size"] == total


def changed(file: Path, target: Path, change) -> str:
    """A copy of a pickled file of weights whose tensors (those under "model", if any) `change` has been at."""
    weights = torch.load(file)
    change(weights.get("model", weights))
    torch.save(weights, target)
    return str(target)


KEY = "llama_model.base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
DAMAGES = {
    "a missing tensor": (
        "biomedclip",
        lambda weights: weights.pop("visual.trunk.blocks.0.norm2.bias"),
        r"lacks 1 tensors that the model needs, such as model\.vision_tower\.encoder\.layer\.0\.layernorm_after\.bias",
    ),
    "an unexpected tensor": (
        "biomedclip",
        lambda weights: weights.update({"visual.trunk.blocks.0.ls1.gamma": torch.ones(3)}),
        r"unexpected tensor 'visual\.trunk\.blocks\.0\.ls1\.gamma' of shape \(3,\)",
    ),
    "another shape": (
        "biomedclip",
        lambda weights: weights.update({"visual.trunk.pos_embed": torch.ones(1, 50, WIDTH)}),
        r"'visual\.trunk\.pos_embed' has shape \(1, 50, 32\), the model wants \(1, 65, 32\)",
    ),
    "a projector of another width": (
        "minigpt_v2",
        lambda weights: weights.update({"llama_proj.weight": torch.ones(TEXT_WIDTH, 41)}),
        r"'llama_proj\.weight' has shape \(48, 41\), the model wants \(48, 40\)",
    ),
    "no projector": ("minigpt_v2", lambda weights: weights.pop("llama_proj.bias"), "lacks 1 tensors"),
    "LoRA that is not whole": ("minigpt_v2", lambda weights: weights.pop(KEY), "has no LoRA for .*v_proj.lora_B"),
    "LoRA of another width": (
        "minigpt_v2",
        lambda weights: weights.update({KEY: torch.ones(49, RANK)}),
        r"layers\.1\.self_attn\.v_proj\.lora_B\.weight has shape \(49, 4\), not \(48, 4\)",
    ),
    "LoRA of more layers": (
        "minigpt_v2",
        lambda weights: weights.update({KEY.replace("layers.1", "layers.2"): torch.ones(48, RANK)}),
        "LoRA that the architecture has no place for",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_written(arguments, tmp_path, damage):
    option, change, message = DAMAGES[damage]
    file = changed(Path(getattr(arguments, option)), tmp_path / "changed.bin", change)
    with pytest.raises(SystemExit, match=rf"changed\.bin: .*{message}") as error:
        main(replace(arguments, **{option: file}))
    assert "\n" not in str(error.value) and not Path(arguments.output_dir).exists()


def test_a_key_that_the_user_names_may_be_left_out(arguments, tmp_path):
    def surprise(weights):
        weights["visual.trunk.surprise.weight"] = torch.ones(3)

    file = changed(Path(arguments.biomedclip), tmp_path / "changed.bin", surprise)
    report = convert(replace(arguments, biomedclip=file, skip_keys=["*.surprise.*"]))
    assert "visual.trunk.surprise.weight" in report["sources"][1]["left_out"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"biomedclip": None}, "--biomedclip: is missing"),
        ({"biomedclip": "absent.bin"}, r"absent\.bin: there is no such file"),
        ({"eva_clip": "eva_vit_g.pth"}, "--eva_clip: the architecture has no such tower"),
        ({"litegpt": "release.pth"}, "give one"),
        ({"llama": "absent"}, "absent: there is no such folder"),
        ({"architecture": "llava"}, "neither one of biomedclip, litegpt, minigpt_v2, pubmedclip nor a file"),
        ({"max_shard_size": "much"}, "--max_shard_size much: is no size"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, changes, message):
    with pytest.raises(SystemExit, match=message) as error:
        main(replace(arguments, **changes))
    assert "\n" not in str(error.value) and not Path(arguments.output_dir).exists()


def test_a_folder_that_holds_something_is_not_replaced(arguments):
    (Path(arguments.output_dir) / "thesis").mkdir(parents=True)
    with pytest.raises(SystemExit, match="exists already"):
        main(arguments)
    assert (Path(arguments.output_dir) / "thesis").is_dir()


def test_a_tokenizer_that_is_not_the_language_models_is_refused(arguments, published, tmp_path):
    shutil.copytree(published / "llama", tmp_path / "llama", ignore=shutil.ignore_patterns("token*"))
    LlamaTokenizer(vocab={"<unk>": 0, "<s>": 1, "</s>": 2}, merges=[]).save_pretrained(tmp_path / "llama")
    with pytest.raises(SystemExit, match=r"llama: its tokenizer knows 3 tokens, but its weights have \d+ rows"):
        main(replace(arguments, llama=str(tmp_path / "llama")))


def test_an_interrupted_conversion_leaves_no_checkpoint_and_can_be_run_again(arguments, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(convert_weights_to_hf, "fresh_tensors", interrupt)  # when the language model is written
        convert(arguments)
    assert not Path(arguments.output_dir).exists()
    convert(arguments)
    loaded(arguments.output_dir)
    assert [path.name for path in Path(arguments.output_dir).parent.iterdir()] == ["checkpoint"]


def test_the_program_runs_as_a_file_beside_modeling_litegpt_py(tmp_path):
    command = [
        sys.executable,
        convert_weights_to_hf.__file__,
        "--llama",
        "absent",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    program = subprocess.run([*command, "--merge_lora", "false"], capture_output=True, text=True)
    assert program.returncode == 1
    assert program.stderr.strip().splitlines()[-1] == "absent: there is no such folder"


def test_sizes_are_read_in_decimal_units():
    assert [bytes_of(size) for size in ("500MB", "2GB", "1.5 gb", "60KB")] == [
        500_000_000,
        2 * 10**9,
        1_500_000_000,
        60_000,
    ]
