#!/usr/bin/env bash
# demo.sh [RUN]: installs what is missing, builds, analyses RUN and says where to look. Without RUN: a synthetic patient's seven venograms,
# analysed and compared.
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
  phantom=results/demo/phantom
  if [ ! "$phantom/events.json" -nt "$program" ]; then
    say "writing a synthetic case: one foot, seven venograms from before valvulotomy to the redo"
    "$program" phantom case --size 512 --output "$phantom" --quiet
  fi
  say "analysing and comparing its seven runs"
  "$program" compare "$phantom"/run_0?.dcm --events "$phantom/events.json" --video --output results/demo/comparison
  page=results/demo/comparison/report.html
else
  say "analysing $run"
  "$program" analyze "$run" --output results/demo/analysis
  page=results/demo/analysis/report.html
fi
if with_nvcc && [ "$preset" = cpu ]; then
  say "nvcc is here, but no GPU: building the CUDA path too, see build/cuda.log (minutes the first time; CINELUMEN_NO_CUDA=1 leaves it out)"
  build cuda cinelumen_kernels
fi
say "open $page in a browser"
