#pragma once
/// Errors of the kernel layer. Everything else a user can cause is reported by io/ and engine/ (see their error types).

#include <stdexcept>
#include <string>

namespace cinelumen {

/// No such device, or a device that failed. The program answers with exit code 3 or falls back to the CPU.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws std::invalid_argument "<function>: <what was wrong>" unless `valid`.
/// For the checks at the head of every public kernel function.
inline void require(bool valid, const char* message) {
  if (!valid) throw std::invalid_argument(message);
}

}  // namespace cinelumen
