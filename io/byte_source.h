#pragma once
/// Bytes of a file at any offset, for readers that look at them in several threads and don't trust them.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace cinelumen {

/// Random access to the bytes of a regular file or of memory. Reading is thread-safe. No file stays open between reads, so a run may
/// consist of any number of files. A file that has changed since it was opened is an InputError, not another run's pixels.
class ByteSource {
 public:
  /// Throws InputError unless path names a regular, readable file; never blocks on a pipe or a device.
  static ByteSource file(const std::string& path);
  /// `path` names the bytes in messages.
  static ByteSource memory(const std::string& path, std::vector<std::uint8_t> bytes);

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  /// Fills `to` with the bytes from `offset`. Throws InputError where they don't exist, or the file has changed or can't be read.
  void read(std::uint64_t offset, std::span<std::uint8_t> to) const;
  /// `size` bytes from `offset`, checked against the source's size before anything is allocated.
  std::vector<std::uint8_t> read(std::uint64_t offset, std::uint64_t size) const;

 private:
  std::string path_;
  std::uint64_t size_ = 0;
  std::uint64_t device_ = 0, inode_ = 0;
  std::int64_t modified_ns_ = 0;
  std::shared_ptr<const std::vector<std::uint8_t>> memory_;
};

/// SHA-256 of all bytes of the source, 64 hexadecimal digits.
std::string sha256(const ByteSource& source);
/// SHA-256 of the sources' own SHA-256 (32 bytes each) one after the other; of one source: its own.
std::string sha256(std::span<const ByteSource> sources);

/// Text from a file made safe for messages, JSON and pages: valid UTF-8 without control characters, at most `limit` bytes.
std::string clean_text(const std::string& text, std::size_t limit = 1024);

}  // namespace cinelumen
