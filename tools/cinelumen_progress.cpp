#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tools/progress.h"

namespace cinelumen {

bool stderr_is_terminal() {
  const char* terminal = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) && !(terminal && std::strcmp(terminal, "dumb") == 0);
}

void ProgressBar::show(const std::string& stage, int done, int total) {
  if (!shown_ || total <= 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (stage == stage_ && done < total && now - last_ < std::chrono::milliseconds(100)) return;
  stage_ = stage;
  last_ = now;
  constexpr int width = 32;
  const int filled = std::clamp(static_cast<int>(static_cast<long long>(width) * done / total), 0, width);
  std::string bar;
  for (int i = 0; i < width; ++i) bar += i < filled ? "█" : "░";
  std::fprintf(stderr, "\r\033[K%-14s %s %d/%d", stage.c_str(), bar.c_str(), done, total);
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressBar::clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace cinelumen
