"""LiteGPT and transformers' LLaVA of the same sizes: their work is the same, so a ratio shows what the code costs."""

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, ViTConfig

from litegpt.modeling_litegpt import LiteGPTConfig

NUM_HEADS = 12
IMAGE_SIZE, PATCH_SIZE = 224, 32
NUM_VISUAL_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
IMAGE_TOKEN_ID = 3


def same_size_configs(
    hidden_size: int, num_layers: int, vocab_size: int
) -> tuple[LiteGPTConfig, LiteGPTConfig, LlavaConfig]:
    """Configurations of LiteGPT with two towers, of LiteGPT with one, and of LLaVA.

    All have the same language model after 49 visual tokens of one radiograph. LiteGPT's two towers (ViT and CLIP, 49
    patch tokens each, 2 joined) have half the layers of LLaVA's one (CLIP, 49 patch tokens), so parameters and
    arithmetic agree: a second patch embedding is all that is more. The one-tower LiteGPT is LLaVA's very network: it
    takes LLaVA's weights and gives LLaVA's answers.

    Args:
        hidden_size: of towers and language model, a multiple of 24.
        num_layers: of LLaVA's tower and of the language model, even.
    """
    text = {
        "hidden_size": hidden_size,
        "intermediate_size": hidden_size * 8 // 3,
        "num_hidden_layers": num_layers,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_HEADS,
        "vocab_size": vocab_size,
    }
    tower = {
        "hidden_size": hidden_size,
        "intermediate_size": 4 * hidden_size,
        "num_attention_heads": NUM_HEADS,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "hidden_act": "gelu",
    }
    one_tower = CLIPVisionConfig(**tower, num_hidden_layers=num_layers)
    two_towers = LiteGPTConfig(
        vision_config=ViTConfig(**tower, num_hidden_layers=num_layers // 2),
        aux_vision_config=CLIPVisionConfig(**tower, num_hidden_layers=num_layers // 2),
        text_config=LlamaConfig(**text),
        image_token_id=IMAGE_TOKEN_ID,
        visual_token_group_size=2,
        # 2h x 2h/3 + 2h/3 x h weights: as many as LLaVA's h x h + h x h.
        projector_hidden_size=hidden_size * 2 // 3,
    )
    litegpt = LiteGPTConfig(
        vision_config=one_tower,
        aux_vision_config=None,
        text_config=LlamaConfig(**text),
        image_token_id=IMAGE_TOKEN_ID,
        visual_token_group_size=1,
        projector_hidden_size=hidden_size,
    )
    llava = LlavaConfig(
        vision_config=one_tower,
        text_config=LlamaConfig(**text),
        image_token_index=IMAGE_TOKEN_ID,
        image_seq_length=NUM_VISUAL_TOKENS,
        vision_feature_layer=-1,
    )
    return two_towers, litegpt, llava
