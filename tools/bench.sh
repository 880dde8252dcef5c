#!/usr/bin/env bash
# bench.sh [--quick] [--long] [--output DIR] [--no-peers] [--filter REGEX]: builds, measures kernels, chain, a live stream and, where their
# Debian packages are here, other programs on the same files; writes DIR/results.json, results.html and results.md [results/bench]. What is
# missing or fails is in them by name. --quick: minutes, fewer rows; --long: 60 s of stream instead of 10, more repetitions.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
usage="usage: tools/bench.sh [--quick | --long] [--output DIR] [--no-peers] [--filter REGEX]"
mode=full output=results/bench peers=1 filter=
while [ $# -gt 0 ]; do
  case $1 in
    --quick | --long) mode=${1#--} ;;
    --no-peers) peers=0 ;;
    --output | --filter)
      [ $# -gt 1 ] || fail "$usage"
      [ "$1" = --output ] && output=$2 || filter=$2
      shift
      ;;
    *) fail "$usage" ;;
  esac
  shift
done
case $mode in
  quick) sides=512,1024 seconds=0.05 repetitions=1 peer_sides=512 rounds=1 peer_seconds=0.1 stream_side=512 stream_s=6 ;;
  full) sides=512,1024,2048 seconds=0.2 repetitions=3 peer_sides=512,1024 rounds=3 peer_seconds=0.8 stream_side=1024 stream_s=10 ;;
  long) sides=512,1024,2048 seconds=0.5 repetitions=5 peer_sides=512,1024 rounds=5 peer_seconds=0.8 stream_side=1024 stream_s=60 ;;
esac
[ -n "$filter" ] || { [ "$mode" = quick ] && filter='-phantom|_300_frames|throughput_with_topology|throughput_60' || filter='-phantom'; }

install_packages "$needed_to_build$needed_to_test
python3 - makes the page"
LOAD_AT_START=$(cut -d' ' -f1 /proc/loadavg)
export LOAD_AT_START
preset=cpu
if with_nvcc && with_gpu; then preset=cuda; fi
say "building ($preset), see build/$preset.log"
build "$preset" cinelumen cinelumen_bench cinelumen_feed
python=$([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo python3)  # Debian's: it is what Debian's scikit-image is for
export PYTHONDONTWRITEBYTECODE=1
if [ "$peers" = 1 ]; then
  say "building the peers, see build/peers.log"
  # -k 0: a peer that does not build must not keep the others from being built; the results say that it is absent.
  { cmake --preset "$preset" -DCINELUMEN_PEERS=ON && cmake --build --preset "$preset" -j "$jobs" --target cinelumen_peers -- -k 0; } \
    >build/peers.log 2>&1 || echo "not all of them were built, see build/peers.log"
  grep 'peer absent' build/peers.log || true
fi
bin=build/$preset/bin
mkdir -p "$output"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "kernels and chain"
CINELUMEN_BENCH_SIDES=$sides "$bin/cinelumen_bench" --benchmark_filter="$filter" --benchmark_min_time="$seconds" \
  --benchmark_repetitions="$repetitions" --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=false \
  --benchmark_out="$work/benchmark.json" --benchmark_out_format=json >"$output/benchmark.log" 2>&1 ||
  echo "cinelumen_bench failed, see $output/benchmark.log"
grep -E 'ERROR OCCURRED' "$output/benchmark.log" || true

say "a live stream at 30 frames/s for $stream_s s"
{ "$bin/cinelumen_feed" "$stream_side" 30 "$stream_s" 2>"$work/feed" | "$bin/cinelumen" stream - --output "$work/stream.out" \
  >"$work/stream" 2>"$work/stream_summary"; } || echo "the stream failed: $(tail -n 1 "$work/stream_summary")"
cat "$work/feed" >>"$work/stream_summary"
grep -E 'latency|fed' "$work/stream_summary" || true

if [ "$peers" = 1 ]; then
  say "the peers"
  data=results/bench_data
  for side in ${peer_sides//,/ }; do
    [ -e "$data/cine$side.thresholds.json" ] || { "$python" bench/peers/make_cine.py "$data" "$side" &&
      "$python" bench/peers/make_inputs.py "$data/cine$side.json"; } ||
      echo "the peers' files can't be made: python3-numpy, -scipy, -skimage and -pydicom are needed"
  done
  "$python" bench/peers/compare.py "$bin" "$data" "$work/peers" --rounds "$rounds" --seconds "$peer_seconds" --sides "$peer_sides" ||
    echo "the peers were not compared"
fi

files=("stream=$work/stream" "stream_summary=$work/stream_summary" "benchmark=$work/benchmark.json")
if [ "$peers" = 1 ]; then files+=("peers=$work/peers"); fi
version=$("$bin/cinelumen" --version | head -n 1) # "cinelumen 0.1.0 (commit)": of what was measured, not of what the tree is by now
commit=${version#*(}
"$python" bench/collect.py "$output/results.json" "${files[@]}" "version=${version% (*}" "commit=${commit%)}" \
  "compiler=$(c++ --version | head -n 1)" "build=Release, $preset" "mode=$mode"
"$python" bench/page.py "$output/results.json" "$output/results.html" "$output/results.md"
say "open $output/results.html in a browser; $output/results.md is the same as Markdown"
