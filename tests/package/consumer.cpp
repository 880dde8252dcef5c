/// Uses each installed library once: a kernel, the engine, and an error of io's.

#include <cstdio>

#include "engine/calibration.h"
#include "io/run_reader.h"
#include "kernels/log_attenuation.h"

int main() {
  using namespace cinelumen;
  const Stream stream = Stream::cpu();
  Image<std::uint16_t> stored(4, 4);
  set_zero(stream, stored.view());
  Array<float> table(2);
  table[0] = 3;
  table[1] = 5;
  Image<float> attenuation(4, 4);
  log_attenuation(stream, stored.view(), table.view(), attenuation.view());
  if (attenuation(3, 3) != 3) return 1;
  if (calibrate({}, 0.25).mm_per_px != 0.25) return 2;
  try {
    read_run("no such file");
    return 3;
  } catch (const InputError& error) {
    std::puts(error.what());
  }
  return 0;
}
