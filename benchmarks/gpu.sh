#!/usr/bin/env bash
# What waits for a GPU, in one command of at most eight minutes: decoding, jumps ahead and LoRA training of the 7B
# model, training of CXR-CLIP and ECAMP, and the pixels that feed them.
#
#   benchmarks/gpu.sh wheels [FOLDER]   with a network: downloads what a machine with torch and transformers may lack
#   benchmarks/gpu.sh run [FOLDER]      on that machine, no network: installs it for this run alone, measures
#   benchmarks/gpu.sh report            adds $OUT/gpu.json, brought back from that machine, to benchmarks/GPU.md
#
# FOLDER is outputs/gpu-wheels. Figures go to $OUT/gpu.json (OUT is outputs/gpu), what was printed to $OUT/gpu.log; on a
# GPU they are added to benchmarks/GPU.md as well. Each part has a time limit, and one that fails stops no other; the
# status is then 1. Without a GPU the same programs run in a tiny form on the CPU. PYTHON is .venv's or python3.
set -uo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
OUT=${OUT:-outputs/gpu}
SECONDS_IN_ALL=${SECONDS_IN_ALL:-465}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
# Not among them: what such a machine has (torch, transformers, accelerate, peft, pyarrow, pandas, scipy, scikit-learn,
# matplotlib, filelock, xxhash); imagecodecs (26 MB), in whose place pylibjpeg and pydicom decode, which takes longer;
# and vLLM (its wheel, 0.32, is 330 MB and takes torch 2.13 with CUDA's libraries).
# Their releases are the lock file's. All together: 50 MB.
WHEELS=(
    datasets dill multiprocess # 1 MB: rows; the last two are what datasets takes
    trl                        # 1 MB: the trainer that ours is made of
    evaluate                   # imported by the trainer's validation
    pydicom                    # 2 MB: DICOM files
    pylibjpeg pylibjpeg-openjpeg # 2 MB: JPEG 2000 in them
    bitsandbytes               # 43 MB: the 8-bit training alone needs it
)

wheels() {
    mkdir -p "$1"
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version 312 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --dest "$1" --constraint requirements/main.txt "${WHEELS[@]}" || return 1
    echo "$1: $(du -sm "$1" | cut -f 1) MB"
}

# part NAME LIMIT PROGRAM...: runs it, but no longer than LIMIT seconds nor past the end of all, and notes how it went.
part() {
    local name=$1 limit=$2 start=$SECONDS status=0 outcome=done
    shift 2
    if ((limit > SECONDS_IN_ALL - SECONDS)); then limit=$((SECONDS_IN_ALL - SECONDS)); fi
    echo "=== $name: $limit s at most ==="
    if ((limit < 3)); then
        outcome="no time left"
    else
        timeout --kill-after 5 "$limit" "$PYTHON" "$@" --output "$TEMPORARY/figures.json" || status=$?
        if ((status == 124 || status == 137)); then
            outcome="not finished in $limit s"
        elif ((status != 0)); then
            outcome="failed with status $status"
        fi
    fi
    echo "=== $name: $outcome, $((SECONDS - start)) s ==="
    printf '%s\t%s\t%s\n' "$name" "$((SECONDS - start))" "$outcome" >>"$TEMPORARY/parts.tsv"
    "$PYTHON" benchmarks/gpu_report.py collect --folder "$TEMPORARY" --output "$OUT/gpu.json"
    if [ "$outcome" != "done" ]; then FAILED=1; fi
}

measure() {
    FAILED=0
    TEMPORARY=$(mktemp -d)
    trap 'rm -rf "$TEMPORARY"' EXIT
    # They come before what is installed: these releases are those that were tested together.
    if ! "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$TEMPORARY/packages" "$1"/*.whl; then
        echo "The wheels in $1 could not be installed: going on with what is there."
    fi
    export PYTHONPATH="$ROOT:$TEMPORARY/packages${PYTHONPATH:+:$PYTHONPATH}" TMPDIR=$TEMPORARY HF_HUB_OFFLINE=1
    "$PYTHON" benchmarks/gpu_report.py begin --folder "$TEMPORARY"
    local answering=(--quick) training=(--quick) towers=(--quick) pixels=(--quick)
    if ! nvidia-smi -L 2>/dev/null; then
        echo "No GPU here: tiny models on the CPU, which shows that the programs run and nothing else."
        local tiny=(--device cpu --architecture tiny)
        answering=("${tiny[@]}" --batch_sizes 2 --new_tokens 4 --repeats 1)
        training=("${tiny[@]}" --batch_sizes 2 --num_steps 1 --rounds 1)
        towers=("${tiny[@]}" --batch_size 4 --num_steps 1)
        pixels=(--width 160 --height 192 --workers 1 2 --seconds 0.1)
    fi
    # The most valuable first: what comes last has the time that is left.
    part "decoding" 120 benchmarks/gpu_generation.py \
        --modes eager constrained jump_certain jump_ahead "${answering[@]}"
    part "compiled jumps" 120 benchmarks/gpu_generation.py --modes constrained jump_compiled "${answering[@]}"
    part "LoRA training" 180 benchmarks/gpu_training.py "${training[@]}"
    part "towers" 75 benchmarks/gpu_towers.py "${towers[@]}"
    part "pixels" 75 benchmarks/gpu_pixels.py "${pixels[@]}"
    part "compiled decoding" 120 benchmarks/gpu_generation.py --modes compiled "${answering[@]}"
    part "compiled towers" 150 benchmarks/gpu_towers.py --compiled "${towers[@]}"
    echo "vLLM is not measured: its wheel (0.32) is 330 MB and takes torch 2.13 with CUDA's libraries: too much to bring."
    if nvidia-smi -L >/dev/null 2>&1; then "$PYTHON" benchmarks/gpu_report.py append --output "$OUT/gpu.json"; fi
    echo "$OUT/gpu.json: $SECONDS s in all"
    return "$FAILED"
}

FOLDER=${2:-outputs/gpu-wheels}
case "${1:-}" in
wheels) wheels "$FOLDER" ;;
run)
    mkdir -p "$OUT"
    measure "$FOLDER" 2>&1 | tee "$OUT/gpu.log"
    ;;
report) "$PYTHON" benchmarks/gpu_report.py append --output "$OUT/gpu.json" ;;
*)
    sed -n '2,/^set/{/^#/p}' "$0"
    exit 2
    ;;
esac
