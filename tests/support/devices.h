#pragma once
/// Every way a kernel can run here: one test body over all of them.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/stream.h"

namespace cinelumen::test {

/// The ways a kernel can run here, by name: CPU pool, CPU on one thread, CPU at the CUDA tile shape, the same reversed, every CUDA device.
inline std::vector<std::string> all_device_names() {
  std::vector<std::string> names = {"cpu", "cpu_serial", "cpu_cuda_tiles", "cpu_reversed"};
  for (int i = 0; i < cuda_device_count(); ++i) names.push_back("cuda" + std::to_string(i));
  return names;
}

/// A stream on the named device.
inline Stream stream_on(const std::string& name) {
  if (name == "cpu") return Stream::cpu();
  if (name == "cpu_serial") return Stream::cpu({.parallel = false});
  if (name == "cpu_cuda_tiles") return Stream::cpu({.cuda_tiles = true});
  if (name == "cpu_reversed") return Stream::cpu({.reversed = true});
  return Stream::cuda(std::stoi(name.substr(4)));
}

struct Device {
  std::string name;
  Stream stream;
};

/// All of them at once, for tests that compare devices.
inline std::vector<Device> all_devices() {
  std::vector<Device> devices;
  for (const std::string& name : all_device_names()) devices.push_back({name, stream_on(name)});
  return devices;
}

/// Base of tests that run once per device: TEST_P(Name, what) { const Stream stream = this->stream(); ... } and
/// CINELUMEN_ON_ALL_DEVICES(Name). The stream is made in the test, not before: a device that fails must fail a test.
class DeviceTest : public ::testing::TestWithParam<std::string> {
 protected:
  Stream stream() const { return stream_on(GetParam()); }
};

/// True where a test should keep its images small: the devices are emulated.
inline bool small_bodies() { return std::getenv("CINELUMEN_SMALL") != nullptr; }

#define CINELUMEN_ON_ALL_DEVICES(suite)                                                         \
  INSTANTIATE_TEST_SUITE_P(, suite, ::testing::ValuesIn(::cinelumen::test::all_device_names()), \
                           [](const ::testing::TestParamInfo<std::string>& param) { return param.param; })

/// Heights and widths around tile edges (CUDA 16 x 32, CPU 64 x 128), one pixel, and primes.
inline std::vector<std::pair<int, int>> awkward_sizes() {
  if (small_bodies()) return {{1, 1}, {1, 37}, {17, 33}, {31, 70}};
  return {{1, 1}, {1, 37}, {29, 1}, {15, 31}, {16, 32}, {17, 33}, {63, 127}, {64, 128}, {65, 129}, {97, 211}};
}

}  // namespace cinelumen::test
