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
rule "no path of one machine" '["( =](/home/|/work/|/root/)' kernels engine io tools bench tests

say "docstrings"
# In public headers, types and functions at namespace level and public member functions with arguments stand in a paragraph that opens with
# ///, or have ///< beside them. Members without arguments are known by their names.
undocumented=$(awk '
  FNR == 1 { documented = detail = public = 0 }
  /^namespace detail/ { detail = 1 }
  /^}  \/\/ namespace detail/ { detail = 0 }
  /^struct / { public = 1 }
  /^class / { public = 0 }
  /^ public:/ { public = 1; documented = 0; next }
  /^ (private|protected):/ { public = 0; next }
  /^ *\/\/\// { documented = 1; next }
  /^$/ || /^ ? ?};/ { documented = 0; next }
  /^ ? ?}/ { next }
  /^(#|\/\/|namespace|using|extern|static_assert|inline constexpr|template <.*>$|requires |(struct|class) [A-Za-z_0-9]+;)/ { next }
  /^[A-Za-z]/ || (public && /^  [A-Za-z][^{]*\([^)].*;( *\/\/.*)?$/ && !/^  (friend|using|return|static_assert)/ &&
                  !/override;|= (default|delete);|operator|[{]/) {
    if (!documented && !detail && !/\/\/\//) print FILENAME ":" FNR ": " $0
  }
' kernels/*.h engine/*.h engine/phantom/*.h io/*.h tools/*.h)
if [ -n "$undocumented" ]; then
  printf 'undocumented public declarations:\n%s\n' "$undocumented"
  problems=$((problems + 1))
fi

say "formatting"
sources=$(git ls-files '*.h' '*.cpp' '*.cu')
# shellcheck disable=SC2086
mkdir -p build
if ! clang-format --dry-run -Werror $sources 2>build/format.log; then
  grep -E 'error' build/format.log | cut -d: -f1 | sort | uniq -c
  echo "run: clang-format -i on these files"
  problems=$((problems + 1))
fi
[ "$problems" -eq 0 ] || fail "$problems rules are broken"

say "warnings as errors"
build cpu

say "clang-tidy"
# What this branch changed, or the last commit where it is the main branch itself; at most so many files that CI's time suffices (--full
# takes all). Headers are checked through the sources that include them.
tidy=$(git ls-files 'engine/*.cpp' 'io/*.cpp' 'tools/*.cpp')
if [ "$full" = 0 ]; then
  base=$(git merge-base HEAD origin/main 2>/dev/null || true)
  [ -n "$base" ] && [ "$base" != "$(git rev-parse HEAD)" ] || base=$(git rev-parse -q --verify HEAD~1 || true)
  if [ -n "$base" ]; then tidy=$(git diff --name-only --diff-filter=d "$base" -- 'engine/*.cpp' 'io/*.cpp' 'tools/*.cpp'); fi
  limit=${CINELUMEN_TIDY_FILES:-16}
  count=$(wc -w <<<"$tidy")
  if [ "$count" -gt "$limit" ]; then
    echo "the first $limit of $count files; all with --full"
    tidy=$(head -n "$limit" <<<"$tidy")
  fi
fi
if [ -n "$tidy" ]; then
  wc -w <<<"$tidy" | sed 's/$/ files/'
  # shellcheck disable=SC2086
  printf '%s\n' $tidy | xargs -P "$jobs" -n 1 clang-tidy -p build/cpu --quiet --extra-arg=-Wno-unknown-warning-option \
    --warnings-as-errors='*' 2>build/tidy.err >build/tidy.log ||
    { grep -E 'error|warning' build/tidy.log | head -n 40; fail "clang-tidy found something, see build/tidy.log and build/tidy.err"; }
fi

if [ "$full" = 1 ]; then
  for sanitizer in asan tsan; do
    say "$sanitizer"
    build "$sanitizer"
    ctest --preset "$sanitizer" --timeout 3000 -j "$jobs"
  done
  if with_nvcc; then
    say "every CUDA architecture, no register spills"
    CINELUMEN_CUDA_ARCHITECTURES="75-real;80-real;90-real;100-real;90-virtual" build cuda  # all targets: the program too
    tests/cuda.sh build/cuda
  fi
fi
say "all checks passed"
