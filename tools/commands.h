#pragma once
/// The subcommands of `cinelumen`. One file each: cinelumen_<name>.cpp.

#include <CLI/CLI.hpp>
#include <functional>

namespace cinelumen {

/// Options that every subcommand understands.
struct GlobalOptions {
  bool quiet = false;    ///< no progress, no summary; errors only
  bool verbose = false;  ///< stages and notes on stderr
  bool json = false;     ///< the summary as JSON on stdout
};

/// What the chosen subcommand does; its result is the exit code: 0 done, 1 input, 2 usage, 3 device, 4 output. The exceptions
/// InputError, std::invalid_argument, DeviceError and OutputError give these codes in main().
using Command = std::function<int()>;

/// Each adds its subcommand with its options to `app` and, when that subcommand is chosen, sets `command`. `global` is filled before
/// the command runs; all three outlive it.
void add_analyze_command(CLI::App& app, const GlobalOptions& global, Command& command);
void add_compare_command(CLI::App& app, const GlobalOptions& global, Command& command);
void add_info_command(CLI::App& app, const GlobalOptions& global, Command& command);
void add_stream_command(CLI::App& app, const GlobalOptions& global, Command& command);
void add_phantom_command(CLI::App& app, const GlobalOptions& global, Command& command);

}  // namespace cinelumen
