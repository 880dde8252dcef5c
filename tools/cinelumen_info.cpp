#include <cstdio>
#include <memory>
#include <string>

#include "io/run_info.h"
#include "io/run_reader.h"
#include "tools/commands.h"

namespace cinelumen {

void add_info_command(CLI::App& app, const GlobalOptions& global, Command& command) {
  struct Options {
    std::string run;
    ReadOptions read;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* info = app.add_subcommand("info", "What the file says and what would be done with it");
  info->add_option("RUN", options->run, "A DICOM file, a folder with one run's files, a video or an image sequence")->required();
  info->add_option("--frame-time", options->read.frame_time_ms, "Time from frame to frame in ms, where the file has none")
      ->check(CLI::PositiveNumber);
  info->add_option("--spacing", options->read.spacing_mm, "mm per pixel at the vessels, where the file has none")
      ->check(CLI::PositiveNumber);
  info->callback([&global, &command, options] {
    command = [&global, options] {
      const Run run = read_run(options->run, options->read);
      std::fputs((global.json ? describe_run_json(run) : describe_run(run)).c_str(), stdout);
      return 0;
    };
  });
}

}  // namespace cinelumen
