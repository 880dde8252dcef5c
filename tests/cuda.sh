#!/usr/bin/env bash
# tests/cuda.sh BUILD_DIR: executes the CUDA halves of the kernel tests of a CUDA build without a GPU, under the emulator in CINELUMEN_PTXVM,
# in every mode it has, and with each runtime call the product makes failing once. Needs nvcc's PTX in the binaries (a -virtual architecture).
. "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"
build_dir=${1:?usage: tests/cuda.sh BUILD_DIR}
if [ -z "$CINELUMEN_PTXVM" ]; then
  echo "skipped: no emulator (CINELUMEN_PTXVM)"
  exit 0
fi
export CINELUMEN_SMALL=1  # small bodies: an emulator is some 10^4 times slower than a GPU
emulate=$CINELUMEN_PTXVM/run
"$emulate" --print-path >/dev/null
tests=("$build_dir"/tests/cuda/*_test)
[ -x "${tests[0]}" ] || fail "$build_dir: no CUDA tests were built"
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# run NAME OPTIONS -- PROGRAM ARGUMENTS: one line of outcome.
run_one() {
  local name=$1
  shift
  local status=0
  timeout 900 "$emulate" "$@" >"$results/$name.log" 2>&1 || status=$?
  if [ $status -eq 0 ]; then
    echo pass >"$results/$name.result"
  else
    echo fail >"$results/$name.result"
    echo "FAILED ($status): $name"
    tail -n 25 "$results/$name.log"
  fi
}
export -f run_one
export emulate results

list=$results/jobs
for test in "${tests[@]}"; do
  name=$(basename "$test" _test)
  filter='--gtest_filter=*cuda*:*Cuda*'
  for mode in plain --race --reverse "--lazy 7" "--lazy late" "--devices 2"; do
    options=$mode
    [ "$mode" = plain ] && options=
    echo "run_one ${name}_$(tr -d ' -' <<<"$mode") $options -- $test $filter" >>"$list"
  done
done
say "CUDA tests under emulation: $(wc -l <"$list") runs"
xargs -P "$jobs" -I{} bash -c '{}' <"$list"

# Every runtime call that the product makes fails once, early and late: a clear error or a fall-back, never a crash.
say "failing runtime calls"
calls=$(grep -oh 'cuda[A-Z][A-Za-z0-9]*(' "$root"/kernels/*.cu "$root"/kernels/*.h | tr -d '(' | sort -u |
  grep -Ev '^(cudaGetErrorName|cudaGetErrorString|cudaGetLastError|cudaStream_t|cudaError_t)$')
for call in $calls; do
  for n in 1 3; do
    for test in "${tests[@]}"; do
      case $(basename "$test") in tile_test | hysteresis_test | lumen_fit_test) ;; *) continue ;; esac
      name=fail_${call}_${n}_$(basename "$test" _test)
      status=0
      timeout 300 "$emulate" --fail "$call:$n" -- "$test" '--gtest_filter=*cuda0*' >"$results/$name.log" 2>&1 || status=$?
      # A test program may fail: an exception with the call's name is what is asked for. A signal or an abort is not.
      if [ $status -ge 124 ] || { [ $status -ne 0 ] && ! grep -q "$call\|no CUDA device\|Leak\|leak" "$results/$name.log"; }; then
        echo fail >"$results/$name.result"
        echo "FAILED ($status): $name"
        tail -n 15 "$results/$name.log"
      else
        echo pass >"$results/$name.result"
      fi
    done
  done
done
passed=$(grep -lx pass "$results"/*.result | wc -l)
failed=$(grep -lx fail "$results"/*.result | wc -l || true)
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
