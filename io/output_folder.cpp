#include "io/output_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cinelumen {
namespace {

constexpr std::size_t buffer_size = std::size_t{1} << 18;

[[noreturn]] void fail(const std::filesystem::path& path, const char* what, int error) {
  throw OutputError(path.string() + ": " + what + ": " + std::strerror(error));
}

void write_all(int descriptor, const std::filesystem::path& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(path, "can't be written", errno);
    if (written == 0) fail(path, "can't be written", ENOSPC);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void flush_to_disk(const std::filesystem::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0) fail(path, "can't be opened again", errno);
  const int failed = ::fsync(descriptor), error = errno;
  ::close(descriptor);
  if (failed && error != EINVAL && error != ENOTSUP) fail(path, "can't be flushed to the disk", error);  // EINVAL: no such thing there
}

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path) {
  // A link under our temporary name could point anywhere.
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path, "can't be created", errno);
  buffer_.reserve(buffer_size);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      buffer_(std::move(other.buffer_)),
      size_(other.size_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::string_view bytes) {
  if (descriptor_ < 0) throw std::logic_error("OutputFile: written to after close");
  size_ += bytes.size();
  if (buffer_.size() + bytes.size() > buffer_size) flush();
  if (bytes.size() >= buffer_size)
    write_all(descriptor_, path_, bytes);
  else
    buffer_.append(bytes);
}

void OutputFile::write_at(std::size_t offset, std::string_view bytes) {
  if (descriptor_ < 0 || offset + bytes.size() > size_) throw std::logic_error("OutputFile: write_at outside what was written");
  flush();
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(path_, "can't be written", written < 0 ? errno : ENOSPC);
    bytes.remove_prefix(static_cast<std::size_t>(written));
    offset += static_cast<std::size_t>(written);
  }
}

void OutputFile::flush() {
  write_all(descriptor_, path_, buffer_);
  buffer_.clear();
}

void OutputFile::close() {
  if (descriptor_ < 0) return;
  flush();
  const int descriptor = std::exchange(descriptor_, -1);
  const int failed = ::fsync(descriptor), error = errno;
  if (::close(descriptor)) fail(path_, "can't be closed", errno);
  if (failed && error != EINVAL && error != ENOTSUP) fail(path_, "can't be flushed to the disk", error);
}

OutputFolder::OutputFolder(std::filesystem::path folder, std::vector<std::string> names)
    : folder_(std::move(folder)), names_(std::move(names)) {
  if (folder_.empty()) throw OutputError("output folder: an empty name was given, a folder expected");
  std::error_code error;
  for (std::filesystem::path absent = folder_; !absent.empty() && !std::filesystem::exists(absent, error); absent = absent.parent_path())
    made_.insert(made_.begin(), absent);
  std::filesystem::create_directories(folder_, error);
  if (!std::filesystem::is_directory(folder_)) {
    if (std::filesystem::exists(folder_)) throw OutputError(folder_.string() + ": is a file, an output folder was expected");
    fail(folder_, "can't be made", error ? error.value() : ENOENT);
  }
  if (::access(folder_.c_str(), W_OK | X_OK)) fail(folder_, "can't be written to", errno);
  lock_ = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) fail(folder_, "can't be opened", errno);
  if (::flock(lock_, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {  // other errors: a file system without locks
    ::close(lock_);
    throw OutputError(folder_.string() + ": another process is writing into this folder");
  }
  remove_temporaries();
}

OutputFolder::~OutputFolder() {
  remove_temporaries();
  remove_made();
  if (lock_ >= 0) ::close(lock_);
}

void OutputFolder::remove_made() noexcept {
  // What holds something stays: ::rmdir refuses.
  for (; !made_.empty(); made_.pop_back()) ::rmdir(made_.back().c_str());
}

void OutputFolder::remove_temporaries() noexcept {
  std::error_code ignored;
  for (const std::string& name : names_) std::filesystem::remove(folder_ / (name + ".tmp"), ignored);
  std::filesystem::remove_all(folder_ / "scratch.tmp", ignored);
}

std::filesystem::path OutputFolder::temporary(const std::string& name) {
  if (std::find(names_.begin(), names_.end(), name) == names_.end()) throw std::logic_error("OutputFolder: " + name + " was not announced");
  if (std::find(written_.begin(), written_.end(), name) == written_.end()) written_.push_back(name);
  return folder_ / (name + ".tmp");
}

std::filesystem::path OutputFolder::scratch() {
  std::filesystem::path path = folder_ / "scratch.tmp";
  std::error_code error;
  std::filesystem::create_directory(path, error);
  if (error) fail(path, "can't be made", error.value());
  return path;
}

void OutputFolder::write(const std::string& name, std::string_view contents) {
  OutputFile file(temporary(name));
  file.write(contents);
  file.close();
}

void OutputFolder::commit() {
  for (const std::string& name : written_) flush_to_disk(folder_ / (name + ".tmp"), O_RDONLY);
  const auto unlink = [&](const std::string& name) {
    if (::unlink((folder_ / name).c_str()) && errno != ENOENT) fail(folder_ / name, "an earlier result can't be removed", errno);
  };
  const auto give_name = [&](const std::string& name) {
    if (::rename((folder_ / (name + ".tmp")).c_str(), (folder_ / name).c_str())) fail(folder_ / name, "can't be given its name", errno);
  };
  const auto was_written = [&](const std::string& name) { return std::find(written_.begin(), written_.end(), name) != written_.end(); };
  // From here to the end the folder has no names_.front(), so nobody takes a mixture of two runs for one.
  unlink(names_.front());
  for (auto name = names_.begin() + 1; name != names_.end(); ++name) was_written(*name) ? give_name(*name) : unlink(*name);
  if (was_written(names_.front())) {
    flush_to_disk(folder_, O_RDONLY | O_DIRECTORY);
    give_name(names_.front());
  }
  flush_to_disk(folder_, O_RDONLY | O_DIRECTORY);
  written_.clear();
}

}  // namespace cinelumen
