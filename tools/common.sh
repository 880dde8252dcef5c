# Sourced by the scripts of this folder and by .ci/run: where things are, what must be installed, how to build.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
jobs=${CINELUMEN_JOBS:-$(nproc)}
# Real runs and masks, and the emulator that executes the CUDA path without a GPU; both optional.
export CINELUMEN_TEST_DATA=${CINELUMEN_TEST_DATA:-$([ -d ../shared/data ] && (cd ../shared/data && pwd) || true)}
export CINELUMEN_PTXVM=${CINELUMEN_PTXVM:-$([ -d ../shared/ptxvm ] && (cd ../shared/ptxvm && pwd) || true)}
# One cache for every clone on a machine.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$root} CCACHE_NOHASHDIR=1

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# package - why
needed_to_build='
cmake - configures the build
ninja-build - builds
g++ - the C++20 compiler
git - the version stamped into results
pkg-config - finds OpenJPEG
ccache - makes a second build quick
libtbb-dev - the CPU pool
libthrust-dev - scans, sorts and compaction
libdcmtk-dev - DICOM
libopenjp2-7-dev - JPEG 2000
libssl-dev - SHA-256
libopencv-core-dev - pictures
libopencv-imgproc-dev - pictures
libopencv-imgcodecs-dev - pictures
libopencv-videoio-dev - video in and out
libcli11-dev - the command line
libcpp-httplib-dev - the live page of cinelumen stream
libspdlog-dev - messages
nlohmann-json3-dev - JSON
'
needed_to_test='
libgtest-dev - tests
libbenchmark-dev - benchmarks
libopencv-contrib-dev - thinning as a baseline in benchmarks
dicom3tools - dciodvfy, an independent check of the DICOM that is written
dcmtk - dcm2pnm, an independent reader of the DICOM that is written
'

# install_packages LIST: installs what is missing, saying what and why. Does nothing, quickly, where all is there.
install_packages() {
  command -v dpkg-query >/dev/null || { echo "not a Debian system: install by hand, if missing:$(sed -n 's/^\([^ ]*\) - .*/ \1/p' <<<"$1" | tr -d '\n')"; return 0; }
  local missing=() package why
  while read -r package _ why; do
    [ -n "$package" ] || continue
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' && continue
    missing+=("$package")
    printf 'missing: %-26s %s\n' "$package" "$why"
  done <<<"$1"
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "not root and no sudo: ask an administrator for: apt-get install ${missing[*]}"
    echo "installing them with sudo apt-get"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq || fail "apt-get update failed: is there a network?"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get install failed for: ${missing[*]}"
}

# build PRESET TARGET... : configures once, then builds. The compiler's words go to build/PRESET.log, and to the terminal where it fails.
build() {
  local preset=$1 log=build/$1.log
  shift
  mkdir -p build
  local options=()
  if [ "$preset" = cuda ]; then
    # Every GPU generation takes minutes to compile for; a machine builds for its own, or for one real architecture plus PTX.
    local architectures=${CINELUMEN_CUDA_ARCHITECTURES:-}
    [ -n "$architectures" ] || { with_gpu && architectures=native || architectures="90-real;90-virtual"; }
    options+=("-DCINELUMEN_CUDA_ARCHITECTURES=$architectures")
  fi
  if ! cmake --preset "$preset" "${options[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    fail "configuring failed, see $log"
  fi
  if ! cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"} >>"$log" 2>&1; then
    tail -n 60 "$log" >&2
    fail "building failed, see $log"
  fi
}

# The CUDA path is built too where nvcc is, and used where there is a GPU.
with_nvcc() { [ "${CINELUMEN_NO_CUDA:-}" != 1 ] && command -v nvcc >/dev/null; }
with_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }
