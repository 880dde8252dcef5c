#!/usr/bin/env bash
# test.sh: installs what is missing, builds, and runs all tests on the CPU. Tests on real data skip where CINELUMEN_TEST_DATA has none.
# Where nvcc is, the CUDA path and its tests are built too, and run where there is a GPU.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
install_packages "$needed_to_build$needed_to_test"
say "building (cpu), see build/cpu.log"
build cpu
if with_nvcc; then
  say "building (cuda), see build/cuda.log"
  build cuda cinelumen_kernels cinelumen_cuda_tests
fi
say "testing"
status=0
ctest --preset cpu --timeout 600 -j "$jobs" 2>&1 | tee build/test.log || status=$?
# ctest knows programs; what passed and what was skipped is told by the cases inside them. A program that crashed counts once, too.
log=build/cpu/Testing/Temporary/LastTest.log
programs_failed=$(sed -n 's/.* tests passed, \([0-9]*\) tests failed out of [0-9]*.*/\1/p' build/test.log | tail -n 1)
[ -n "$programs_failed" ] || fail "no test ran"
cases() { grep -cE "^\[ *$1 *\] .* \([0-9]+ ms\)$" "$log" || true; }
passed=$(cases OK) skipped=$(cases SKIPPED) failed=$(cases FAILED)
[ "$failed" -ge "$programs_failed" ] || failed=$programs_failed
if with_nvcc && with_gpu; then
  say "testing on the GPU"
  for test in build/cuda/tests/cuda/*_test; do
    if "$test" --gtest_brief=1 '--gtest_filter=*/cuda?:*Cuda*'; then passed=$((passed + 1)); else failed=$((failed + 1)) status=1; fi
  done
fi
echo "$passed passed, $failed failed, $skipped skipped" | tee build/test.summary
exit "$status"
