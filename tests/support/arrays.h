#pragma once
/// Arrays between a test and the device that it runs on.

#include <vector>

#include "kernels/image.h"

namespace cinelumen::test {

/// The values in memory of the stream's device.
template <class T>
Array<T> on_device(const Stream& stream, const std::vector<T>& values) {
  Array<T> result(stream, static_cast<int>(values.size()));
  copy<T>(stream, ArrayView<const T>{values.data(), result.size()}, result.view());
  stream.synchronize();
  return result;
}

/// The values in host memory.
template <class T>
std::vector<T> on_host(const Stream& stream, ArrayView<const T> values) {
  std::vector<T> result(static_cast<std::size_t>(values.size));
  copy<T>(stream, values, ArrayView<T>{result.data(), values.size});
  stream.synchronize();
  return result;
}

}  // namespace cinelumen::test
