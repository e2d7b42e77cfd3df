"""Fixtures that several test files share. No test reaches the network."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]

SHELF_FILES = """
import os
from fsspec.implementations.local import LocalFileSystem

class ShelfFiles(LocalFileSystem):
    protocol = "shelf"

    def __init__(self, **options):
        super().__init__(auto_mkdir=True, **options)

    @classmethod
    def _strip_protocol(cls, path):
        inside, root = path.removeprefix("shelf://").rstrip("/"), os.environ["SHELF"]
        return inside if inside == path.rstrip("/") or inside.startswith(root) else f"{root}/{inside}"
"""


@pytest.fixture(scope="session")
def real_cxr() -> Path:
    """The folder of real radiographs, which is not part of the repository."""
    folder = Path(os.environ.get("LITEGPT_REAL_CXR", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "real_cxr").is_dir():
        pytest.skip(f"needs the real radiographs: no folder {folder / 'real_cxr'} (set LITEGPT_REAL_CXR)")
    return folder


@pytest.fixture(scope="module")
def one_thread():
    """So small a model that it is slower on several."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_arguments():
    """Sizes of a model that a test can afford; wide enough that its answers differ from image to image."""
    from litegpt.modeling_litegpt.arguments import NewCheckpointArguments

    tower = {
        "image_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return NewCheckpointArguments(
        output_dir="",
        vision_config={"model_type": "vit", "patch_size": 8, **tower},
        aux_vision_config={"model_type": "clip_vision_model", "patch_size": 16, **tower},
        text_config={
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.3,
        },
        projector_hidden_size=48,
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_arguments) -> Path:
    """An untrained checkpoint as `new_checkpoint.py` writes it: 80 patch tokens, 16 visual tokens."""
    from dataclasses import replace

    from litegpt.modeling_litegpt.new_checkpoint import main

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    main(replace(tiny_arguments, output_dir=str(folder)))
    return folder


@pytest.fixture(scope="session")
def detector_checkpoint(tmp_path_factory, tiny_arguments) -> Path:
    """The same with a detector of two maps, of whose boxes 4 more visual tokens tell."""
    from dataclasses import replace

    from litegpt.modeling_litegpt.new_checkpoint import main

    folder = tmp_path_factory.mktemp("checkpoint") / "detector"
    detector = {"detector": True, "detector_hidden_size": 16, "detector_scales": [1, 0.5], "num_candidate_tokens": 4}
    main(replace(tiny_arguments, output_dir=str(folder), **detector))
    return folder


@pytest.fixture(scope="session")
def phantom_release(tmp_path_factory) -> Path:
    """A small synthetic release in VinDr-CXR's layout: 24 train and 8 test radiographs."""
    from litegpt.datasets_scripts.phantom_cxr import write_release

    folder = tmp_path_factory.mktemp("phantoms") / "release"
    write_release(folder, num_train=24, num_test=8, size=(128, 128), seed=0, num_proc=1)
    return folder


@pytest.fixture
def radiographs() -> list[Image.Image]:
    """Three different grey pictures of different shape."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).resize(shape[::-1])
        for shape in ((90, 70), (64, 64), (50, 120))
    ]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def rows(phantom_release, cache_dir):
    """The prepared rows of `phantom_release`'s train."""
    from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr

    return load_vindr_cxr(phantom_release, split="train", cache_dir=cache_dir)


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    from litegpt.modeling_litegpt.checkpoints import load_checkpoint

    return load_checkpoint(tiny_checkpoint)[1]


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> str:
    """An address that stands for a bucket: fsspec and a protocol of its own, in child processes too, as a package.

    What lies at shelf://bucket lies in `tmp_path / "shelf" / "bucket"`.
    """
    import fsspec

    package = tmp_path / "package"
    (package / "shelf_files-1.dist-info").mkdir(parents=True)
    (package / "shelf_files-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shelf-files\nVersion: 1\n"
    )
    (package / "shelf_files-1.dist-info" / "entry_points.txt").write_text(
        "[fsspec.specs]\nshelf = shelf_files.ShelfFiles\n"
    )
    (package / "shelf_files.py").write_text(SHELF_FILES)
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    fsspec.register_implementation("shelf", "shelf_files.ShelfFiles", clobber=True)
    monkeypatch.setenv("SHELF", str(tmp_path / "shelf"))
    (tmp_path / "shelf" / "bucket").mkdir(parents=True)
    return "shelf://bucket"
