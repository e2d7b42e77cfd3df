"""A small release, prepared, and the processor of a tiny checkpoint."""

import pytest

from datasets_scripts.vindr_cxr import load_vindr_cxr
from train_scripts.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def rows(phantom_release, cache_dir):
    return load_vindr_cxr(phantom_release, split="train", cache_dir=cache_dir)


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)[1]
