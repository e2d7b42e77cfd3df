"""CXR-CLIP's published weights -> a checkpoint that loads with transformers alone.

    litegpt convert-cxr-clip --weights r50_mcc.tar --tokenizer Bio_ClinicalBERT --output_dir outputs/cxr_clip_r50

In: one of the six published files ({r50, swint} x {m, mc, mcc}: trained on MIMIC-CXR, CheXpert too, ChestX-ray14 too),
and a folder with Bio_ClinicalBERT's vocab.txt. Nothing is downloaded, and of the file only tensors are read. Out: a
checkpoint, `--weights`' kind told by its names. What was left out is printed.

The published weights are for non-commercial use (CC BY-NC), and so is what is made of them: the model card says so.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import re
from pathlib import Path

from transformers import BertTokenizer

from litegpt.common.arguments import parse
from litegpt.common.files import refuse_filled_folder
from litegpt.common.programs import program, refuse_bad_input
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel
from litegpt.modeling_towers.arguments import CXRCLIPConversionArguments
from litegpt.modeling_towers.checkpoints import release_image_processor, save_cxr_clip
from litegpt.modeling_towers.configuration_cxr_clip import BIO_CLINICAL_BERT, SWIN_TINY
from litegpt.modeling_towers.tensors_only import tensors_only
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor

# Prefix of the image tower's names -> its geometry and pooling.
IMAGE_TOWERS = {
    # torchvision's ResNet-50, whose strides are in the 3 x 3 convolutions; over its grid the release takes the mean.
    "image_encoder.resnet.": ({"model_type": "resnet", "downsample_in_bottleneck": False}, "mean"),
    # The paper says mean, but the release takes the first token of whatever is no ResNet, as if it were a class token:
    # Swin's is the top left cell of its grid. The published projection was trained on that cell and fits no mean.
    "image_encoder.image_encoder.": (SWIN_TINY, "first"),
}
TEXT_TOWER = BIO_CLINICAL_BERT
TEXT_PREFIX = "text_encoder.text_encoder."
PROJECTIONS = {"image_projection.projection.": "image_projection.", "text_projection.projection.": "text_projection."}
MAX_LENGTH = 256  # tokens of a text, in the release's training

# In the published files, but no part of our model: BERT's tanh pooler, which the release never calls, and numbers that
# older releases of transformers stored and newer ones compute.
LEFT_OUT = re.compile(
    rf"{re.escape(TEXT_PREFIX)}(pooler\.dense\.(weight|bias)|embeddings\.(position_ids|token_type_ids))"
    r"|image_encoder\.image_encoder\..+\.relative_position_index"
)

# Swin's published name -> its name in newer releases of transformers (which map it themselves where they load a file
# of theirs; older ones have the published names). The first that fits counts.
SWIN_NAMES = {
    "attention.self.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
    "attention.self.query.": "attention.q_proj.",
    "attention.self.key.": "attention.k_proj.",
    "attention.self.value.": "attention.v_proj.",
    "attention.output.dense.": "attention.o_proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
}


@program
def main(arguments: CXRCLIPConversionArguments) -> None:
    with refuse_bad_input():
        refuse_filled_folder(arguments.output_dir)
        model, left_out = converted(Path(arguments.weights))
        tokenizer = bert_tokenizer(Path(arguments.tokenizer), model.config.text_config.vocab_size)
        side, is_resnet = model.config.image_size, model.config.vision_config.model_type == "resnet"
        images = release_image_processor(side, is_resnet)
        if arguments.squash:
            images = image_processor(side, images.image_mean, images.image_std)
        save_cxr_clip(model, CXRCLIPProcessor(images, tokenizer, MAX_LENGTH), arguments.output_dir)
    tower = model.config.vision_config.model_type
    print(f"{arguments.weights}: {len(model.state_dict())} tensors, with a {tower} as image tower")
    for key in left_out:
        print(f"    left out: {key}")
    print(f"{arguments.tokenizer}: texts are {'' if tokenizer.do_lower_case else 'not '}put into lower case")
    if arguments.squash:
        print("whole radiographs: the published weights were trained with the longer side cut, so measure again")
    print(f"{arguments.output_dir}: ready. The published weights are for non-commercial use (CC BY-NC).")


def converted(path: Path) -> tuple[CXRCLIPModel, list[str]]:
    """The model of a published file, in float32, and the published names that it has no use for.

    Raises:
        OSError, ValueError: the file is missing or damaged, or has a tensor too many, too few or of another shape.
    """
    published = tensors_only(path, "model")
    prefixes = [prefix for prefix in IMAGE_TOWERS if any(key.startswith(prefix) for key in published)]
    if len(prefixes) != 1:
        raise ValueError(
            f"{path}: is no published file of CXR-CLIP: exactly one of {' and '.join(IMAGE_TOWERS)} must begin names."
        )
    tower, pooling = IMAGE_TOWERS[prefixes[0]]
    config = CXRCLIPConfig(vision_config=tower, text_config=TEXT_TOWER, image_pooling=pooling)
    config.base_models = ["cxr_clip", "bio_clinical_bert"]  # for the model card
    model = CXRCLIPModel(config).eval()

    named = {with_new_swin_names(name): (name, tensor) for name, tensor in model.state_dict().items()}
    tensors, left_out = {}, []
    for key, tensor in published.items():
        if LEFT_OUT.fullmatch(key):
            left_out.append(key)
            continue
        name, ours = named.get(our_name(key), (None, None))
        if name is None:
            raise ValueError(f"{path}: unexpected tensor '{key}' of shape {tuple(tensor.shape)}.")
        if tensor.shape != ours.shape:
            raise ValueError(f"{path}: '{key}' has shape {tuple(tensor.shape)}, the model wants {tuple(ours.shape)}.")
        tensors[name] = tensor
    if missing := [name for name, _ in named.values() if name not in tensors]:
        raise ValueError(f"{path}: lacks {len(missing)} tensors that the model needs, such as {missing[0]}.")
    model.load_state_dict(tensors)
    return model, left_out


def our_name(key: str) -> str | None:
    """Name of a published tensor in `CXRCLIPModel`, with the newer names of Swin; None where nobody knows it."""
    for published, ours in PROJECTIONS.items():
        if key.startswith(published):
            return ours + key.removeprefix(published)
    if key.startswith(TEXT_PREFIX):
        return "text_model." + key.removeprefix(TEXT_PREFIX)
    if key.startswith("image_encoder.image_encoder."):
        return with_new_swin_names("vision_model." + key.removeprefix("image_encoder.image_encoder."))
    if key.startswith("image_encoder.resnet."):
        name = resnet_name(key.removeprefix("image_encoder.resnet."))
        return name and f"vision_model.{name}"
    return key if key == "logit_scale" else None


def resnet_name(key: str) -> str | None:
    """Name in transformers' `ResNetModel` of a tensor of torchvision's ResNet; None where it has none.

    layer2.0.conv1.weight -> encoder.stages.1.layers.0.layer.0.convolution.weight
    """
    parts = {"conv": "convolution", "bn": "normalization"}
    if match := re.fullmatch(r"(conv|bn)1\.(\w+)", key):
        return f"embedder.embedder.{parts[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))\.(\w+)", key):
        stage, layer, part, number, of_shortcut, tensor = match.groups()
        if of_shortcut:
            place = f"shortcut.{('convolution', 'normalization')[int(of_shortcut)]}"
        else:
            place = f"layer.{int(number) - 1}.{parts[part]}"
        return f"encoder.stages.{int(stage) - 1}.layers.{layer}.{place}.{tensor}"
    return None


def with_new_swin_names(name: str) -> str:
    """A tensor's name as newer releases of transformers have it, of a Swin; other names as they are."""
    if not re.match(r"vision_model\.encoder\.layers\.\d+\.blocks\.", name):
        return name
    for older, newer in SWIN_NAMES.items():
        if older in name:
            return name.replace(older, newer)
    return name


def bert_tokenizer(folder: Path, rows: int) -> BertTokenizer:
    """The tokenizer of a folder, with as many words as the text tower has embeddings.

    Without a tokenizer_config.json it puts texts into lower case, though Bio_ClinicalBERT's words are cased: the
    folder that the release took has none, so its weights were trained so.

    Raises:
        OSError, ValueError: there is none, or it is of another vocabulary.
    """
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise FileNotFoundError(f"{folder}: there is no vocab.txt of a tokenizer.")
    tokenizer = BertTokenizer.from_pretrained(folder)
    if len(tokenizer) != rows:
        raise ValueError(f"{folder}: the tokenizer has {len(tokenizer)} words, the weights were trained on {rows}.")
    return tokenizer


if __name__ == "__main__":
    main(*parse([CXRCLIPConversionArguments], None, "convert_cxr_clip.py", __doc__))
