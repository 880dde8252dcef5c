#!/usr/bin/env bash
# bench/profile.sh [BUILD_DIR] [--side N] [--markdown FILE]: what the CUDA path does, counted without a GPU by the PTX machine in
# CINELUMEN_PTXVM: every kernel by itself, and the chain's steady state. Prints a table and fails where a stated bound is broken
# (bench/profile_table.py has the bounds and the exceptions). Needs a build with a -virtual architecture: `cmake --preset cuda`.
. "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"
build_dir=build/cuda side=1024 markdown=/dev/stdout
while [ $# -gt 0 ]; do
  case $1 in
    --side) side=$2 && shift ;;
    --markdown) markdown=$2 && shift ;;
    -*) fail "usage: bench/profile.sh [BUILD_DIR] [--side N] [--markdown FILE]" ;;
    *) build_dir=$1 ;;
  esac
  shift
done
if [ -z "$CINELUMEN_PTXVM" ]; then
  echo "skipped: no PTX machine (CINELUMEN_PTXVM)"
  exit 0
fi
for program in cinelumen_profile cinelumen_bench; do
  [ -x "$build_dir/bin/$program" ] || fail "$build_dir/bin/$program was not built: cmake --build --preset cuda --target cinelumen_profile cinelumen_bench"
done
run=$CINELUMEN_PTXVM/run
"$run" --print-path >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# chain PASS: frames 9 to 32, every figure there, memory made. One in four makes the picture of the vessels, as in a long run at 30 frames/s.
chain() {
  PTXVM_PROFILE_RANGE=1 "$run" --profile "$work/chain$1.jsonl" --gpu h100 -- "$build_dir/bin/cinelumen_profile" "$side" 32 9 "$1" \
    >"$work/chain$1.json" 2>"$work/chain$1.err" || { cat "$work/chain$1.err" >&2; touch "$work/failed"; }
}

# row NAME: with one iteration and with two: the difference is what one does, without its setting up.
row() {
  local file=$work/row_${1//[\/:]/_} n
  for n in 1 2; do
    CINELUMEN_BENCH_ITERATIONS=$n CINELUMEN_BENCH_SIDES=$kernel_side "$run" --profile "$file.$n.jsonl" --gpu h100 -- \
      "$build_dir/bin/cinelumen_bench" --benchmark_filter="^${1%/process_time*}/" \
      --benchmark_out="$file.$n.json" --benchmark_out_format=json >"$file.log" 2>&1 ||
      { echo "failed: $1"; tail -n 3 "$file.log"; touch "$work/failed"; } >&2
  done
}
kernel_side=512
export -f row
export run build_dir work kernel_side
chain 1 &
chain 2
wait
# Every row that has a CUDA device, but the yardsticks, what runs on the host, and the chain.
CINELUMEN_BENCH_SIDES=$kernel_side "$run" -- "$build_dir/bin/cinelumen_bench" --benchmark_list_tests=true 2>/dev/null |
  grep -E "/cuda0/($kernel_side|6)/" | grep -vE '^(chain|copy_plane|multiply_add|transfer|fit_centrelines)' >"$work/rows" ||
  { echo "no row has a CUDA device" >&2; touch "$work/failed"; }
xargs -P "$jobs" -I{} bash -c 'row {}' <"$work/rows"
python3 bench/profile_table.py "$work" >"$markdown" || touch "$work/failed"
[ ! -e "$work/failed" ]
