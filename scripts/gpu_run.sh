#!/bin/sh
# Everything that needs an NVIDIA GPU, from a checkout, one slice of time per call.
#   usage: OUT=FOLDER scripts/gpu_run.sh tests|bench|bench-batches|streams|train|help
set -eu

help() {
    cat <<'TEXT'
OUT=FOLDER scripts/gpu_run.sh SLICE

Slices:
  tests          pytest -m gpu, with the Triton kernels compiled; tests.txt, tests.xml
  bench          flow head 1536 x 12 with 1 and 64 latents, torch.compile included; bench.json, bench.txt
  bench-batches  the same with 2 to 32 latents, and 256 x 4, without torch.compile; bench_batches.json
  streams        whole latents and streams in real time of MODEL; streams.json
  train          motion training that goes on where the last slice stopped; run/ in parts, train.txt

Settings, in the environment:
  OUT       folder for results; made if it is not there. Needed.
  SECONDS_PER_SLICE  time of one call, [s], 60 or more (540). What runs is asked to stop before, and killed at the end.
  PYTHON    interpreter with PyTorch and Triton (python3)
  MODEL     streams: model or checkpoint folder (llamo-mini)
  DATA      train: folder of `llamo data pack`, or a .tar of one (data/packed)
  STAGE     train: stage 1, 2 or 3 of the motion side (2)
  START     train: model or checkpoint folder to begin from (llamo-mini)
  FROM      train: folder of parts that an earlier slice left, $OUT/run of then
  STEPS     train: steps of the whole schedule, over all slices (the stage's own)
  TRAIN_OPTIONS  train: further options of `llamo train motion`
  WORK      folder for what lies between (build/gpu)
  DRY_RUN   1: everything at tiny size on a CPU, to try the script. Without it, or with 0, a missing GPU is an error.

Packages of pure Python that the machine lacks (array-api-compat, tqdm, pytest with pluggy and iniconfig) are found in
build/gpu/site: pip install --no-deps --target build/gpu/site PACKAGE, on a machine with a network.

The run folder also stays in $WORK/run, so that on the same checkout no FROM is needed.
Exit status: 0 done, 3 the slice is over and training is not, 2 wrong usage or no GPU, else that of what failed.
TEXT
}

fail() {
    echo "gpu_run.sh: $*" >&2
    exit 2
}

# A path as it is from the folder of the call; a name of which nothing is there stays as it is.
from_here() {
    case $1 in
        '' | /*) echo "$1" ;;
        *) if [ -e "$1" ]; then echo "$PWD/$1"; else echo "$1"; fi ;;
    esac
}

slice=${1:-help}
[ $# -le 1 ] || fail "one call runs one slice, but $# arguments were given: $*. Settings go before the command, as in \
OUT=out/gpu SECONDS_PER_SLICE=540 scripts/gpu_run.sh $slice."
case $slice in
    tests | bench | bench-batches | streams | train) ;;
    help | -h | --help)
        help
        exit 0
        ;;
    *) fail "there is no slice '$slice'. Slices: tests, bench, bench-batches, streams, train, help." ;;
esac
case ${DRY_RUN:=0} in
    0 | 1) ;;
    *) fail "DRY_RUN is '$DRY_RUN', expected 1 to try the script on a CPU, or 0 for the GPU." ;;
esac
budget=${SECONDS_PER_SLICE:-540}
case $budget in
    *[!0-9]* | 0* | ? | [1-5]? | ???????*)
        fail "SECONDS_PER_SLICE is '$budget', expected a whole number of seconds from 60 on, such as 540."
        ;;
esac
[ -n "${OUT:-}" ] || fail "OUT is not set: the folder for results. See scripts/gpu_run.sh help."
PYTHON=${PYTHON:-python3}
case $PYTHON in
    */*) PYTHON=$(from_here "$PYTHON") ;;
esac
[ "$("$PYTHON" -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)" = True ] ||
    fail "PYTHON is '$PYTHON', which is no Python 3.11 or newer that runs here. Set it to one that has PyTorch."
{ mkdir -p "$OUT" && [ -w "$OUT" ]; } 2>/dev/null ||
    fail "OUT is '$OUT', where no folder can be made or written. Choose another one, such as out/gpu."
OUT=$(cd "$OUT" && pwd)
case ${FROM:-} in '' | /*) ;; *) FROM=$PWD/$FROM ;; esac
case ${DATA:-} in '' | /*) ;; *) DATA=$PWD/$DATA ;; esac
model=$(from_here "${MODEL:-llamo-mini}")
start=$(from_here "${START:-llamo-mini}")
cd "$(dirname "$0")/.."
began=$(date +%s)
data=${DATA:-$PWD/data/packed}
if [ "$slice" = streams ] && [ ! -f "$model/config.json" ] && [ ! -f "llamo_ros/assets/$model/config.json" ]; then
    fail "MODEL is '$model', which is neither a checkpoint folder, with a config.json, nor a model of the package: \
$(cd llamo_ros/assets && echo *)."
fi
if [ "$slice" = train ] && [ ! -e "$data" ]; then
    fail "there is no data in $data. Make it with 'llamo data pack', and set DATA to it."
fi
WORK=${WORK:-build/gpu}
{ mkdir -p "$WORK" && [ -w "$WORK" ]; } 2>/dev/null ||
    fail "WORK is '$WORK', where no folder can be made or written. Leave it out, or choose another one."

# The package from this checkout: what setuptools maps to llamo_ros.kernels is a folder beside it.
mkdir -p build/checkout/llamo_ros
ln -sfn "$PWD/kernels" build/checkout/llamo_ros/kernels
export PYTHONPATH="$PWD:$PWD/build/checkout:$PWD/build/gpu/site${PYTHONPATH:+:$PYTHONPATH}"
export TRITON_DEFAULT_FP_FUSION=${TRITON_DEFAULT_FP_FUSION:-1}
needed='torch numpy safetensors tokenizers yaml tqdm array_api_compat'
[ "$slice" != tests ] || needed="$needed pytest"
missing=$("$PYTHON" - "$needed" <<'TEXT'
import importlib.util, sys
print(*(name for name in sys.argv[1].split() if importlib.util.find_spec(name) is None))
TEXT
)
case " $missing " in
    *' torch '*) fail "PYTHON is '$PYTHON', which has no PyTorch (it lacks $missing). Set it to one that has." ;;
esac
[ -z "$missing" ] || fail "$PYTHON lacks $missing. What is pure Python can be brought along: on a machine with a network, \
pip install --no-deps --target build/gpu/site PACKAGE, and copy that folder with the checkout."
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)

# Seconds until the slice is over, less some to put things away.
remaining() {
    left=$((budget - ($(date +%s) - began) - ${1:-15}))
    [ "$left" -gt 5 ] || left=5
    echo "$left"
}

# Run a command and keep its output; asked to stop when the slice is over, killed 30 s later. Returns its status.
logged() {
    log=$OUT/$1
    shift
    status=0
    { timeout --preserve-status --kill-after=30 "$(remaining 45)" "$@" 2>&1 && echo 0 >"$log.status" ||
        echo $? >"$log.status"; } | tee "$log"
    status=$(cat "$log.status")
    rm -f "$log.status"
    return "$status"
}

status=0
"$PYTHON" - >"$OUT/machine.txt" <<'TEXT' || status=$?
import importlib.metadata, platform, sys, torch
print("python", platform.python_version(), "torch", torch.__version__)
try:
    print("triton", importlib.metadata.version("triton"))
except importlib.metadata.PackageNotFoundError:
    print("no triton")
for index in range(torch.cuda.device_count()):
    print(torch.cuda.get_device_properties(index))
sys.exit(0 if torch.cuda.is_available() else 9)
TEXT
[ "$status" = 0 ] || [ "$status" = 9 ] || fail "PyTorch of $PYTHON cannot be used, see above. Set PYTHON to another one."
device=cuda
if [ "$DRY_RUN" = 1 ]; then
    device=cpu
elif [ "$status" = 9 ]; then
    fail "PyTorch of $PYTHON finds no NVIDIA GPU. DRY_RUN=1 tries the script at tiny size on a CPU."
fi
echo "commit $commit, $slice, $(date -u +%FT%TZ)" | tee -a "$OUT/machine.txt"

run_tests() {
    tests=${TESTS:-tests/kernels tests/model tests/pipelines tests/training}
    if [ "$DRY_RUN" = 1 ]; then
        set -- -k "${TEST_NAMES:-test_machine_probe}"
        tests=tests/kernels
    else
        set -- -m gpu
    fi
    # shellcheck disable=SC2086 # several folders
    logged tests.txt "$PYTHON" -m pytest -p no:cacheprovider "$@" --junitxml="$OUT/tests.xml" $tests
}

run_bench() {
    name=$1
    shift
    [ "$DRY_RUN" = 0 ] || set -- --device cpu --sizes 32x2 --batches 1 2 --steps 2 --seconds 0.01
    logged "$name.txt" "$PYTHON" benchmarks/gpu_flow_sampler.py "$@" --commit "$commit" --json "$OUT/$name.json"
}

# Frames are made by compiled kernels whatever the device. Where they are missing: some seconds on many cores.
make_kernels() {
    if ! "$PYTHON" -c 'import llamo_ros._kernels' 2>/dev/null; then
        logged kernels.txt scripts/build_kernels.sh "$PYTHON" ||
            fail "the compiled kernels are missing and cannot be made here, see $OUT/kernels.txt."
    fi
}

run_streams() {
    make_kernels
    set -- --device "$device" --checkpoint "$model" --only latents streams length --busy no
    [ "$DRY_RUN" = 0 ] || set -- "$@" --precisions int8 --seconds 1 --ticks 1 --length 1 --most-streams 2
    logged streams.txt "$PYTHON" benchmarks/whole_latent.py "$@" --json "$OUT/streams.json"
}

run_train() {
    make_kernels
    run=$WORK/run
    if [ -f "$data" ]; then
        rm -rf "$WORK/data" && mkdir -p "$WORK/data"
        tar -xf "$data" -C "$WORK/data"
        data=$(dirname "$(find "$WORK/data" -name index.json | head -n 1)")
    fi
    if [ -n "${FROM:-}" ]; then
        rm -rf "$WORK/joined"
        "$PYTHON" scripts/run_parts.py join "$FROM" "$WORK/joined" || return 1 # a run that is here stays
        rm -rf "$run" "$WORK/start"
        if [ -f "$WORK/joined/state.pt" ]; then
            mv "$WORK/joined" "$run"
        else # only the averaged weights fitted
            mv "$WORK/joined" "$WORK/start"
            start=$WORK/start
        fi
    fi
    set -- --stage "${STAGE:-2}" --start "$start" --data "$data" --out "$run" --device "$device" --no-samples
    [ -z "${STEPS:-}" ] || set -- "$@" --steps "$STEPS"
    status=0
    # shellcheck disable=SC2086 # several options
    logged train.txt "$PYTHON" -m llamo_ros.cli train motion "$@" ${TRAIN_OPTIONS:-} || status=$?
    [ ! -f "$run/run.json" ] || "$PYTHON" scripts/run_parts.py split "$run" "$OUT/run"
    case $status in
        0) return 0 ;;
        130 | 143) return 3 ;; # stopped by the end of the slice, and saved
        *) return "$status" ;;
    esac
}

case $slice in
    tests) run_tests ;;
    bench) run_bench bench --batches 1 64 ;;
    bench-batches) run_bench bench_batches --sizes 1536x12 256x4 --batches 2 4 8 16 32 --no-compile ;;
    streams) run_streams ;;
    train) run_train ;;
esac
