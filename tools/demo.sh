#!/usr/bin/env bash
# demo.sh [RUN]: installs what is missing, builds, analyses RUN (default: a synthetic foot venogram) and says where to look.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -le 1 ] || fail "usage: tools/demo.sh [RUN]"
run=${1:-}
[ -z "$run" ] || [ -e "$run" ] || fail "$run: no such file or folder"
[ -z "$run" ] || run=$(realpath -- "$run")

install_packages "$needed_to_build"
preset=cpu
if with_nvcc && with_gpu; then preset=cuda; fi
say "building ($preset), see build/$preset.log"
build "$preset" cinelumen
program=build/$preset/bin/cinelumen
if [ -z "$run" ]; then
  run=results/demo/phantom/run_01.dcm
  if [ ! "$run" -nt "$program" ]; then
    say "writing a synthetic foot venogram"
    "$program" phantom foot --output results/demo/phantom --quiet
  fi
fi
say "analysing $run"
"$program" analyze "$run" --output results/demo/analysis
if with_nvcc && [ "$preset" = cpu ]; then
  say "nvcc is here, but no GPU: building the CUDA path too, see build/cuda.log (minutes the first time; CINELUMEN_NO_CUDA=1 leaves it out)"
  build cuda cinelumen_kernels
fi
say "open results/demo/analysis/report.html in a browser"
