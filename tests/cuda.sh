#!/usr/bin/env bash
# tests/cuda.sh BUILD_DIR: executes the CUDA half of a CUDA build's tests without a GPU, under the emulator in CINELUMEN_PTXVM, in every
# mode it has, and with each runtime call that the product makes failing. Needs nvcc's PTX in the binaries (a -virtual architecture).
. "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"
build_dir=${1:?usage: tests/cuda.sh BUILD_DIR}
if [ -z "$CINELUMEN_PTXVM" ]; then
  echo "skipped: no emulator (CINELUMEN_PTXVM)"
  exit 0
fi
export CINELUMEN_SMALL=1  # small bodies: an emulator is some 10^4 times slower than a GPU
emulate=$CINELUMEN_PTXVM/run
"$emulate" --print-path >/dev/null
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
filter='--gtest_filter=*/cuda?:*Cuda*'

# Every test source that runs on devices must have been built: a program that is missing must not pass for one that passes.
tests=()
for source in $(grep -lE 'CINELUMEN_ON_ALL_DEVICES|^TEST\(\w*Cuda' "$root"/tests/*_test.cpp); do
  name=$(basename "$source" .cpp)
  if [ -x "$build_dir/tests/cuda/$name" ]; then
    tests+=("$build_dir/tests/cuda/$name")
  elif [ -e "$root/kernels/${name%_test}.h" ] || [[ $name == *_cuda_test ]]; then
    fail "$name was not built in $build_dir/tests/cuda"
  fi
done
[ ${#tests[@]} -gt 0 ] || fail "$build_dir: no CUDA tests were built"

# run_one NAME EMULATOR-OPTIONS -- PROGRAM: one line where it fails. At least one test must have run on a device and none been left out
# for want of one. The emulator tells races, leaks and accesses out of bounds on stderr, and not in the exit status.
run_one() {
  local name=$1
  shift
  local status=0
  timeout 300 "$emulate" "$@" >"$results/$name.log" 2>&1 || status=$?
  if [ $status -eq 0 ] && grep -q '^\[       OK \]' "$results/$name.log" &&
    ! grep -qE 'no CUDA device|^ptxvm: ' "$results/$name.log"; then
    echo pass >"$results/$name.result"
  else
    echo fail >"$results/$name.result"
    { echo "FAILED ($status): $name"; tail -n 25 "$results/$name.log"; } | sed 's/^/  /'
  fi
}

# fail_one NAME CALL EMULATOR-OPTIONS -- PROGRAM: a runtime call fails. Tests may fail then, with an exception that names a call; what must not
# happen is a signal, a time-out, or a failure that says nothing. Memory that could not be freed, because the call that frees it is the
# one that fails, is no leak.
fail_one() {
  local name=$1 call=$2
  shift 2
  local status=0 problem=
  timeout 300 "$emulate" "$@" >"$results/$name.log" 2>&1 || status=$?
  if [ $status -ge 124 ]; then
    problem="ended by a signal or a time-out"
  elif [ $status -ne 0 ] && ! grep -qE '(cuda[A-Za-z0-9]+\(.*|kernel launch|Thrust) failed: |no CUDA device' "$results/$name.log"; then
    problem="no word of the failing call"
  elif grep -E '^ptxvm: ' "$results/$name.log" | grep -vqE "injected failure$([[ $call = cudaFree* ]] && echo '|not freed')"; then
    problem="the emulator found something after the failure"
  fi
  if [ -z "$problem" ]; then
    echo pass >"$results/$name.result"
  else
    echo fail >"$results/$name.result"
    { echo "FAILED ($status, $problem): $name"; tail -n 15 "$results/$name.log"; } | sed 's/^/  /'
  fi
}
# steady_one NAME FRAMES PROGRAM FILTER: what the host does while a run's frames go through both passes, each in flight with others: nothing
# but copies from pinned memory, one graph launch a frame and pass, and waits for a frame's own event.
steady_one() {
  local name=$1 frames=$2 problem
  problem=$(timeout 300 "$emulate" --profile "$results/$name.profile" -- "$3" "$4" 2>&1 >"$results/$name.log" &&
    python3 - "$results/$name.profile" "$frames" 2>&1 <<'JUDGE'
import json, re, sys

lines = [json.loads(line) for line in open(sys.argv[1])]
range_ = next(line for line in lines if line["type"] == "host_in_profiler_range")
whole = next(line for line in lines if line["type"] == "host")
wrong = [f"{key}: {count}" for key, count in range_.items()
         if count and re.fullmatch(r"calls\.cuda(Malloc|Free|StreamSynchronize|DeviceSynchronize|Memcpy$|Memcpy2D$|StreamBeginCapture|GraphInstantiate|LaunchKernel).*"
                                   r"|copy\..*pageable.*count", key)]
launches = whole.get("calls.cudaGraphLaunch", 0)
if launches != 2 * int(sys.argv[2]):
    wrong.append(f"graph launches: {launches} for {sys.argv[2]} frames in two passes")
if not range_.get("calls.cudaEventSynchronize", 0):
    wrong.append("no frame was waited for: the profiler looked at nothing")
if wrong:
    sys.exit("; ".join(wrong))
JUDGE
  )
  if [ $? -eq 0 ] && [ -z "$problem" ]; then
    echo pass >"$results/$name.result"
  else
    echo fail >"$results/$name.result"
    echo "  FAILED: $name: $problem"
  fi
}
export -f run_one fail_one steady_one
export emulate results

list=$results/jobs
for mode in plain --race --reverse "--lazy 7" "--lazy late" "--devices 2"; do
  for test in "${tests[@]}"; do
    options=$mode
    [ "$mode" = plain ] && options=
    echo "run_one $(basename "$test" _test)_$(tr -d ' -' <<<"$mode") $options -- $test '$filter'" >>"$list"
  done
done
echo "steady_one steady_state 8 $build_dir/tests/cuda/analysis_cuda_test --gtest_filter=AnalysisCuda.SteadyState" >>"$list"
# The calls are read from the sources: one that is added is tested. Questions about errors don't fail, and the emulator can't let
# what destroys fail, nor the profiler; it knows three others by the names of calls that they share their code with.
calls=$(grep -ohE 'cuda[A-Z][A-Za-z0-9]*\(' "$root"/kernels/*.cu "$root"/kernels/*.h | tr -d '(' | sort -u |
  grep -vE '^(cudaGetErrorName|cudaGetErrorString|cudaGetLastError|cuda(Stream|Event|Graph|GraphExec)Destroy|cudaProfiler(Start|Stop))$' |
  sed 's/^cudaStreamCreateWithFlags$/cudaStreamCreate/; s/^cudaEventCreateWithFlags$/cudaEventCreate/; s/^cudaMemcpy2DAsync$/cudaMemcpyAsync/' | sort -u)
calls="$calls cudaLaunchKernel"
for call in $calls; do
  for n in 1 2 20; do
    for name in tile hysteresis analysis_cuda; do
      echo "fail_one fail_${call}_${n}_$name $call --fail $call:$n -- $build_dir/tests/cuda/${name}_test '$filter'" >>"$list"
    done
  done
done
say "CUDA tests under emulation: ${#tests[@]} programs, $(wc -l <"$list") runs"
xargs -P "$jobs" -d '\n' -I{} bash -c '{}' <"$list"
for call in $calls; do
  grep -qs "injected failure in $call" "$results/fail_${call}_"*.log || {
    echo "  FAILED: no test program made $call fail"
    echo "injected $call" >>"$list"
  }
done
passed=$(cat "$results"/*.result | grep -cx pass || true)
failed=$(($(wc -l <"$list") - passed))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
