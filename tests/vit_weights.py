"""Weights as timm and EVA-CLIP name those of a vision transformer."""

import torch


def vit_weights(width: int, mlp: int, blocks: int, patch: int, positions: int, fused_bias: bool) -> dict:
    """Random weights under the keys of timm's ViT, or of EVA-CLIP (`fused_bias=False`: a bias for q and v alone)."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, positions, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(blocks):
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
        linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        linear |= {"mlp.fc1": (mlp, width), "mlp.fc2": (width, mlp)}
        for name, shape in linear.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            if name != "attn.qkv" or fused_bias:
                shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        if not fused_bias:
            shapes |= {f"blocks.{block}.attn.{part}_bias": (width,) for part in "qv"}
    generator = torch.Generator().manual_seed(0)
    weights = {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    for key in weights:
        if "norm" in key and key.endswith("weight"):
            weights[key] += 1
    return weights
