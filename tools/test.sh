#!/usr/bin/env bash
# test.sh: installs what is missing, builds, and runs all tests on the CPU. Tests on real data skip where CINELUMEN_TEST_DATA has none.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
install_packages "$needed_to_build$needed_to_test"
say "building (cpu), see build/cpu.log"
build cpu
say "testing"
status=0
ctest --preset cpu --timeout 600 -j "$jobs" 2>&1 | tee build/test.log || status=$?
# ctest's own closing line gives failures and total; skipped tests pass there.
read -r failed total < <(sed -n 's/.* tests passed, \([0-9]*\) tests failed out of \([0-9]*\).*/\1 \2/p' build/test.log | tail -n 1)
[ -n "${total:-}" ] || fail "no test ran"
skipped=$(grep -c '\*\*\*Skipped' build/test.log || true)
echo "$((total - failed - skipped)) passed, $failed failed, $skipped skipped"
exit "$status"
