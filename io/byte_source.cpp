#include "io/byte_source.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/run.h"

namespace cinelumen {
namespace {

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) {
    if (descriptor_ < 0) throw InputError(path + ": can't be opened: " + std::strerror(errno));
  }
  ~OpenFile() { ::close(descriptor_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

struct stat regular_file(const std::string& path, const OpenFile& file) {
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0) throw InputError(path + ": can't be read: " + std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw InputError(path + ": not a regular file or a folder");
  return status;
}

std::int64_t modified_ns(const struct stat& status) { return status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec; }

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    if (!context_ || EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) != 1) throw std::runtime_error("SHA-256 is not available");
  }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(std::span<const std::uint8_t> bytes) { EVP_DigestUpdate(context_, bytes.data(), bytes.size()); }
  std::vector<std::uint8_t> digest() {
    std::vector<std::uint8_t> result(32);
    EVP_DigestFinal_ex(context_, result.data(), nullptr);
    return result;
  }

 private:
  EVP_MD_CTX* context_;
};

std::vector<std::uint8_t> digest(const ByteSource& source) {
  Sha256 hash;
  std::vector<std::uint8_t> part(std::min<std::uint64_t>(source.size(), 1 << 20));
  for (std::uint64_t offset = 0; offset < source.size(); offset += part.size()) {
    const std::span<std::uint8_t> piece(part.data(), std::min<std::uint64_t>(part.size(), source.size() - offset));
    source.read(offset, piece);
    hash.add(piece);
  }
  return hash.digest();
}

std::string hexadecimal(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

/// Length of the valid UTF-8 sequence at `at`, 0 where there is none.
std::size_t utf8_length(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0, surrogate = first == 0xED && byte(1) > 0x9F;
    return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && byte(1) < 0x90, beyond = first == 0xF4 && byte(1) > 0x8F;
    return follows(1) && follows(2) && follows(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

}  // namespace

ByteSource ByteSource::file(const std::string& path) {
  const OpenFile file(path);
  const struct stat status = regular_file(path, file);
  ByteSource source;
  source.path_ = path;
  source.size_ = static_cast<std::uint64_t>(status.st_size);
  source.device_ = status.st_dev;
  source.inode_ = status.st_ino;
  source.modified_ns_ = modified_ns(status);
  return source;
}

ByteSource ByteSource::memory(const std::string& path, std::vector<std::uint8_t> bytes) {
  ByteSource source;
  source.path_ = path;
  source.size_ = bytes.size();
  source.memory_ = std::make_shared<const std::vector<std::uint8_t>>(std::move(bytes));
  return source;
}

void ByteSource::read(std::uint64_t offset, std::span<std::uint8_t> to) const {
  if (offset > size_ || to.size() > size_ - offset)
    throw InputError(path_ + ": truncated: " + std::to_string(to.size()) + " bytes expected from byte " + std::to_string(offset) +
                     ", the file has " + std::to_string(size_));
  if (memory_) {
    std::copy_n(memory_->begin() + static_cast<std::ptrdiff_t>(offset), to.size(), to.begin());
    return;
  }
  const OpenFile file(path_);
  const struct stat status = regular_file(path_, file);
  if (static_cast<std::uint64_t>(status.st_size) != size_ || status.st_dev != device_ || status.st_ino != inode_ ||
      modified_ns(status) != modified_ns_)
    throw InputError(path_ + ": the file changed while it was read");
  for (std::size_t done = 0; done < to.size();) {
    const ssize_t count = ::pread(file.descriptor(), to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw InputError(path_ + ": can't be read at byte " + std::to_string(offset + done) + ": " + std::strerror(errno));
    if (count == 0) throw InputError(path_ + ": the file changed while it was read");
    done += static_cast<std::size_t>(count);
  }
}

std::vector<std::uint8_t> ByteSource::read(std::uint64_t offset, std::uint64_t size) const {
  if (offset > size_ || size > size_ - offset) read(offset, std::span<std::uint8_t>(static_cast<std::uint8_t*>(nullptr), size));
  std::vector<std::uint8_t> bytes(size);
  read(offset, bytes);
  return bytes;
}

std::string sha256(const ByteSource& source) { return hexadecimal(digest(source)); }

std::string sha256(std::span<const ByteSource> sources) {
  if (sources.size() == 1) return sha256(sources.front());
  Sha256 hash;
  for (const ByteSource& source : sources) hash.add(digest(source));
  return hexadecimal(hash.digest());
}

std::string clean_text(const std::string& text, std::size_t limit) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    const unsigned char first = static_cast<unsigned char>(text[at]);
    // C1 controls (U+0080 to U+009F) drive terminals as ESC does.
    const bool control = first < 0x20 || first == 0x7F || (length == 2 && first == 0xC2 && static_cast<unsigned char>(text[at + 1]) < 0xA0);
    const std::string piece = length == 0 ? "?" : control ? " " : text.substr(at, length);
    if (result.size() + piece.size() > limit) break;
    result += piece;
    at += std::max<std::size_t>(length, 1);
  }
  return result;
}

}  // namespace cinelumen
