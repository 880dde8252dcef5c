#pragma once
/// Where results go: every file is written as NAME.tmp and gets its final name only when all of them are complete.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace cinelumen {

/// A result can't be written. what() names the path and the system's reason. Exit code 4.
class OutputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A file being written, buffered. Every call throws OutputError if the system refuses (disk full, I/O error).
class OutputFile {
 public:
  /// Creates or empties the file at `path`.
  explicit OutputFile(const std::filesystem::path& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  const std::filesystem::path& path() const { return path_; }
  /// Appends. Throws OutputError where the disk refuses.
  void write(std::string_view bytes);
  /// Overwrites bytes that were written before, at `offset` from the file's start; the end stays where it is.
  void write_at(std::size_t offset, std::string_view bytes);
  std::size_t size() const { return size_; }
  /// Writes out what is buffered, flushes it to the disk and closes. Further writes are a logic error.
  void close();

 private:
  void flush();
  std::filesystem::path path_;
  std::string buffer_;
  std::size_t size_ = 0;
  int descriptor_ = -1;
};

/// A folder that a command fills. Existing files that are not ours are left alone. Not more than one at a time may hold a folder.
/// If the process is killed only *.tmp are left (besides complete results of an earlier run); they go at the next start.
class OutputFolder {
 public:
  /// Makes `folder` with its parents where absent. `names`: every name this command may write there. Throws OutputError where it can't be
  /// made or written to, or another process is writing into it.
  OutputFolder(std::filesystem::path folder, std::vector<std::string> names);
  OutputFolder(const OutputFolder&) = delete;
  /// Removes unfinished files unless commit() was called; folders that were made for it and hold nothing go, too.
  ~OutputFolder();

  const std::filesystem::path& path() const { return folder_; }
  /// Where to write `name` (one of `names`) until commit(); the caller creates and completes the file.
  std::filesystem::path temporary(const std::string& name);
  /// A folder for scratch files, also removed by commit() and the destructor. Its name ends in .tmp.
  std::filesystem::path scratch();
  /// Writes a whole file.
  void write(const std::string& name, std::string_view contents);
  /// Gives all files written so far their final names, flushed to the disk, `names.front()` last: where it stands, the folder is complete.
  /// Files of `names` from an earlier run that were not written this time are removed.
  void commit();

 private:
  void remove_temporaries() noexcept;
  void remove_made() noexcept;
  std::filesystem::path folder_;
  std::vector<std::string> names_, written_;
  std::vector<std::filesystem::path> made_;  // outermost first
  int lock_ = -1;
};

}  // namespace cinelumen
