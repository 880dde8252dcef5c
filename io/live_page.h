#pragma once
/// A web page with the live picture and the lumen's trace, for browsers on this machine.

#include <memory>
#include <string>

#include "engine/live_analysis.h"

namespace cinelumen {

/// Serves http://127.0.0.1:PORT/ from threads of its own. Pictures are encoded when somebody asks for one.
class LivePage {
 public:
  /// Listens on `address` (an IP address; 127.0.0.1 unless others are to look) and `port` (0: any free one).
  /// Throws InputError where it can't.
  LivePage(const std::string& address, int port, bool calibrated);
  ~LivePage();
  /// What to type into a browser.
  const std::string& url() const;
  /// Shows a frame: its picture with the measured lumen, and `line`, its JSON.
  void show(const LiveFrame& frame, const std::string& line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cinelumen
