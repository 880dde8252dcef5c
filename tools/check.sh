#!/usr/bin/env bash
# check.sh [--full]: the house's rules. Without --full: dependency rule, formatting, docstrings, warnings as errors, clang-tidy on changed
# files. With it: clang-tidy on all, sanitizers, and every CUDA architecture without register spills.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
full=0
case ${1:-} in '') ;; --full) full=1 ;; *) fail "usage: tools/check.sh [--full]" ;; esac
install_packages "
clang-format - formatting
clang-tidy - static analysis
$needed_to_build$needed_to_test"

problems=0
# rule TEXT GREP-ARGUMENTS: no line may match.
rule() {
  local text=$1 found
  shift
  if found=$(grep -rnE "$@" --include='*.h' --include='*.cu' --include='*.cpp' 2>/dev/null); then
    printf 'broken: %s\n%s\n' "$text" "$found"
    problems=$((problems + 1))
  fi
}

say "dependency rule"
rule "kernels/ sees kernels/ only" '#include "(engine|io|tools)/' kernels
rule "engine/ sees kernels/ and engine/ only" '#include "(io|tools)/' engine
rule "io/ does not see tools/" '#include "tools/' io
rule "only kernels/ knows CUDA, oneTBB and Thrust" '#include <(cuda|tbb/|oneapi/|thrust/|cub/)' engine io tools
rule "only io/ knows DCMTK and OpenCV (tests and bench may)" '#include [<"](dcmtk/|opencv2/|openjpeg)' kernels engine tools
rule "only io/ knows files and sockets" '#include <(fstream|filesystem|sys/socket.h|fcntl.h)>' engine
rule "launches stand in kernels/tile.h only" '<<<' engine io tools bench tests $(ls kernels/* | grep -v 'kernels/tile.h')
rule "no device-wide synchronisation" 'cudaDeviceSynchronize|cudaMallocManaged' kernels engine
rule "no path of one machine" '["( ](/home/|/work/|/root/|/tmp/)' kernels engine io tools bench

say "docstrings"
# A declaration at namespace or public class level (one or two spaces deep in a class body) that opens a line must follow a line of ///, stand
# beside one, or follow a documented overload. Catches functions, classes, structs and enums of public headers.
undocumented=$(awk '
  FNR == 1 { documented = 0; previous = ""; open_detail = 0 }
  /^namespace detail/ { open_detail = 1 }
  /^}  \/\/ namespace detail/ { open_detail = 0 }
  { line = $0 }
  line ~ /^\/\/\// || line ~ /^  \/\/\// { documented = 1; next }
  line ~ /^(template|CINELUMEN_HOST_DEVICE)/ && line !~ /[;{]$/ { next }
  line ~ /^  requires/ { next }
  line ~ /^(class|struct|enum class|enum) [A-Za-z_]+.*[{:]/ && !documented && !open_detail { print FILENAME ":" FNR ": " line }
  line ~ /^[A-Za-z_:<>,*& ]+ [a-z_]+\(.*/ && line !~ /^(if|for|while|return|else|namespace|using|inline constexpr|static_assert)/ && !documented && !open_detail && !continued { print FILENAME ":" FNR ": " line }
  { continued = (line !~ /[;{}]$/ && line !~ /^#/ && line !~ /^$/ && line !~ /^\/\//) }
  line ~ /^$/ { documented = 0; next }
  line ~ /[;}]$/ && line !~ /^[A-Za-z].*\(.*;$/ { documented = 0 }
' kernels/*.h engine/*.h engine/phantom/*.h io/*.h)
if [ -n "$undocumented" ]; then
  printf 'undocumented public declarations:\n%s\n' "$undocumented"
  problems=$((problems + 1))
fi

say "formatting"
sources=$(git ls-files '*.h' '*.cpp' '*.cu')
# shellcheck disable=SC2086
if ! clang-format --dry-run -Werror $sources 2>build/format.log; then
  grep -E 'error' build/format.log | cut -d: -f1 | sort | uniq -c
  echo "run: clang-format -i on these files"
  problems=$((problems + 1))
fi
[ "$problems" -eq 0 ] || fail "$problems rules are broken"

say "warnings as errors"
build cpu

say "clang-tidy"
base=$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse -q --verify HEAD~1 || true)
if [ "$full" = 1 ] || [ -z "$base" ]; then
  tidy=$(git ls-files 'engine/*.cpp' 'io/*.cpp' 'tools/*.cpp')
else
  tidy=$(git diff --name-only --diff-filter=d "$base" -- 'engine/*.cpp' 'io/*.cpp' 'tools/*.cpp')
  [ "$full" = 1 ] || tidy=$(head -n "${CINELUMEN_TIDY_FILES:-6}" <<<"$tidy")  # CI's time is bounded; --full takes all
fi
if [ -n "$tidy" ]; then
  # shellcheck disable=SC2086
  printf '%s\n' $tidy | xargs -P "$jobs" -n 1 clang-tidy -p build/cpu --quiet --warnings-as-errors='*' 2>build/tidy.err >build/tidy.log ||
    { grep -E 'error|warning' build/tidy.log | head -n 40; fail "clang-tidy found something, see build/tidy.log"; }
fi

if [ "$full" = 1 ]; then
  for sanitizer in asan tsan; do
    say "$sanitizer"
    build "$sanitizer"
    ctest --preset "$sanitizer" --timeout 3000 -j "$jobs"
  done
  if with_nvcc; then
    say "every CUDA architecture, no register spills"
    CINELUMEN_CUDA_ARCHITECTURES="75-real;80-real;90-real;100-real;90-virtual" build cuda
    tests/cuda.sh build/cuda
  fi
fi
say "all checks passed"
