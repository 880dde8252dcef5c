#pragma once
/// Every way a kernel can run here: one test body over all of them.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/stream.h"

namespace cinelumen::test {

struct Device {
  std::string name;
  Stream stream;
};

/// CPU pool, CPU on one thread, CPU at the CUDA tile shape, the same reversed, and every CUDA device.
inline std::vector<Device> all_devices() {
  std::vector<Device> devices = {{"cpu", Stream::cpu()},
                                 {"cpu_serial", Stream::cpu({.parallel = false})},
                                 {"cpu_cuda_tiles", Stream::cpu({.cuda_tiles = true})},
                                 {"cpu_reversed", Stream::cpu({.reversed = true})}};
  for (int i = 0; i < cuda_device_count(); ++i) devices.push_back({"cuda" + std::to_string(i), Stream::cuda(i)});
  return devices;
}

/// Base of tests that run once per device: TEST_P(Name, what) { const Stream stream = this->stream(); ... } and
/// CINELUMEN_ON_ALL_DEVICES(Name). The stream is made in the test, not before: a device that fails must fail a test.
class DeviceTest : public ::testing::TestWithParam<std::string> {
 protected:
  Stream stream() const {
    for (Device& device : all_devices())
      if (device.name == GetParam()) return device.stream;
    throw std::logic_error("no device " + GetParam());
  }
};

inline std::vector<std::string> all_device_names() {
  std::vector<std::string> names = {"cpu", "cpu_serial", "cpu_cuda_tiles", "cpu_reversed"};
  for (int i = 0; i < cuda_device_count(); ++i) names.push_back("cuda" + std::to_string(i));
  return names;
}

#define CINELUMEN_ON_ALL_DEVICES(suite)                                                         \
  INSTANTIATE_TEST_SUITE_P(, suite, ::testing::ValuesIn(::cinelumen::test::all_device_names()), \
                           [](const ::testing::TestParamInfo<std::string>& param) { return param.param; })

/// Heights and widths around tile edges (CUDA 16 x 32, CPU 64 x 128), one pixel, and primes.
inline std::vector<std::pair<int, int>> awkward_sizes() {
  return {{1, 1}, {1, 37}, {29, 1}, {15, 31}, {16, 32}, {17, 33}, {63, 127}, {64, 128}, {65, 129}, {97, 211}};
}

}  // namespace cinelumen::test
