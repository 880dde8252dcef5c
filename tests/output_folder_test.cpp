/// Nothing half-written stands under a final name, whatever happens.

#include "io/output_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <set>

namespace cinelumen {
namespace {

namespace fs = std::filesystem;

class Folders : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cinelumen_output_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root = name;
  }
  void TearDown() override {
    fs::permissions(root, fs::perms::owner_all);
    fs::remove_all(root);
  }
  std::set<std::string> listing(const fs::path& folder) const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
    return names;
  }
  static std::string contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  /// Runs `body` in a child process; its exit code.
  template <class Body>
  static int in_child(Body body) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body());
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  fs::path root;
};

TEST_F(Folders, WhatFailsLeavesNoFolderThatItMade) {
  fs::create_directory(root / "there");
  for (const fs::path& where : {root / "made" / "for it", root / "there" / "inside", root / "there"}) {
    OutputFolder folder(where, {"summary", "table"});
    folder.write("summary", "half");
    std::ofstream(folder.scratch() / "rest") << "x";
  }
  EXPECT_EQ(listing(root), (std::set<std::string>{"there"})) << "the folder that was there before stays";
  EXPECT_TRUE(listing(root / "there").empty());
  {
    OutputFolder folder(root / "made" / "again", {"summary"});
    std::ofstream(root / "made" / "somebody else's") << "x";
  }
  EXPECT_EQ(listing(root / "made"), (std::set<std::string>{"somebody else's"}));
  {
    OutputFolder folder(root / "whole", {"summary"});
    folder.write("summary", "all");
    folder.commit();
  }
  EXPECT_EQ(listing(root / "whole"), (std::set<std::string>{"summary"}));
}

TEST_F(Folders, FilesAppearAtCommitOnly) {
  OutputFolder folder(root / "a" / "b", {"summary", "table"});
  folder.write("summary", "one");
  OutputFile table(folder.temporary("table"));
  for (int i = 0; i < 100000; ++i) table.write("0123456789");
  table.write_at(5, "XY");
  EXPECT_EQ(table.size(), 1000000u);
  table.close();
  std::ofstream(folder.scratch() / "rest") << "x";
  EXPECT_EQ(listing(root / "a" / "b"), (std::set<std::string>{"summary.tmp", "table.tmp", "scratch.tmp"}));
  folder.commit();
  EXPECT_EQ(contents(root / "a" / "b" / "summary"), "one");
  const std::string written = contents(root / "a" / "b" / "table");
  ASSERT_EQ(written.size(), 1000000u);
  EXPECT_EQ(written.substr(0, 20), "01234XY7890123456789");
  EXPECT_THROW(folder.write("other", ""), std::logic_error) << "a name that was not announced can't be cleaned up";
}

TEST_F(Folders, FailureLeavesEarlierResultsAndNothingElse) {
  {
    OutputFolder folder(root / "out", {"summary", "table", "video"});
    for (const char* name : {"summary", "table", "video"}) folder.write(name, "first");
    folder.commit();
  }
  std::ofstream(root / "out" / "notes.txt") << "mine";
  {
    OutputFolder folder(root / "out", {"summary", "table", "video"});
    folder.write("summary", "second");
  }
  EXPECT_EQ(listing(root / "out"), (std::set<std::string>{"summary", "table", "video", "notes.txt"}));
  EXPECT_EQ(contents(root / "out" / "summary"), "first");
  {
    OutputFolder folder(root / "out", {"summary", "table", "video"});
    folder.write("summary", "third");
    folder.write("table", "third");
    folder.commit();
  }
  EXPECT_EQ(listing(root / "out"), (std::set<std::string>{"summary", "table", "notes.txt"})) << "a video of another run must not stay";
  EXPECT_EQ(contents(root / "out" / "table"), "third");
}

TEST_F(Folders, KilledMidwayLeavesOnlyTmpAndTheNextStartFinishes) {
  const fs::path out = root / "out";
  EXPECT_EQ(in_child([&] {
              OutputFolder folder(out, {"summary", "table"});
              folder.write("table", "half");
              folder.scratch();
              return ::_exit(9), 0;
            }),
            9);
  EXPECT_EQ(listing(out), (std::set<std::string>{"table.tmp", "scratch.tmp"}));
  OutputFolder folder(out, {"summary", "table"});
  EXPECT_TRUE(listing(out).empty());
  folder.write("summary", "whole");
  folder.commit();
  EXPECT_EQ(listing(out), (std::set<std::string>{"summary"}));
}

TEST_F(Folders, ReadOnlyAndImpossibleFoldersAreNamed) {
  std::ofstream(root / "file") << "x";
  EXPECT_THROW(OutputFolder(root / "file", {"summary"}), OutputError);
  EXPECT_THROW(OutputFolder(root / "file" / "below", {"summary"}), OutputError);
  EXPECT_THROW(OutputFolder("", {"summary"}), OutputError);
  try {
    OutputFolder folder("/proc/cinelumen", {"summary"});
    FAIL() << "a folder was made in /proc";
  } catch (const OutputError& error) {
    EXPECT_NE(std::string(error.what()).find("/proc/cinelumen"), std::string::npos) << error.what();
  }
  const fs::path locked = root / "read_only";
  fs::create_directory(locked);
  fs::permissions(locked, fs::perms::owner_read | fs::perms::owner_exec);
  if (::geteuid() == 0) return;  // root may write anywhere
  EXPECT_THROW(OutputFolder(locked, {"summary"}), OutputError);
}

TEST_F(Folders, FullDiskIsAnError) {
  const int code = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      OutputFolder folder(root / "out", {"summary"});
      folder.write("summary", std::string(2 << 20, 'x'));
      folder.commit();
      return 0;
    } catch (const OutputError&) {
      return 4;
    }
  });
  EXPECT_EQ(code, 4);
  EXPECT_FALSE(fs::exists(root / "out")) << "made for what failed";
}

TEST_F(Folders, TwoWritersAreRefused) {
  OutputFolder folder(root / "out", {"summary"});
  EXPECT_THROW(OutputFolder(root / "out", {"summary"}), OutputError);
}

TEST_F(Folders, LinksUnderTemporaryNamesAreNotFollowed) {
  std::ofstream(root / "precious") << "precious";
  fs::create_directory(root / "out");
  OutputFolder folder(root / "out", {"summary"});
  fs::create_symlink(root / "precious", root / "out" / "summary.tmp");
  EXPECT_THROW(folder.write("summary", "x"), OutputError);
  EXPECT_EQ(contents(root / "precious"), "precious");
}

}  // namespace
}  // namespace cinelumen
