/// cinelumen: the program. Each subcommand stands in a file of its own.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "engine/run.h"
#include "io/byte_source.h"
#include "io/output_folder.h"
#include "kernels/error.h"
#include "tools/commands.h"

namespace cinelumen {
namespace {

enum ExitCode { done = 0, bad_input = 1, wrong_usage = 2, no_device = 3, no_output = 4 };

/// One line on stderr, whatever the message holds.
int fail(ExitCode code, const std::string& message) {
  std::fprintf(stderr, "cinelumen: %s\n", clean_text(message, 1 << 14).c_str());
  return code;
}

/// The options of `app`, space-separated, long names only.
std::string option_names(const CLI::App& app) {
  std::string names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names += " --" + name;
  return names;
}

/// A bash function that completes subcommands, their options, and files.
std::string bash_completion(const CLI::App& app) {
  std::string names, cases;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    names += (names.empty() ? "" : " ") + sub->get_name();
    cases += "    " + sub->get_name() + ") words=\"" + option_names(*sub).substr(1) + option_names(app) + "\" ;;\n";
  }
  return "# bash completion for cinelumen: eval \"$(cinelumen completion bash)\"\n"
         "_cinelumen() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= words= word\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case $word in -*) ;; *) command=$word; break ;; esac\n"
         "  done\n"
         "  case $previous in\n"
         "    --device) COMPREPLY=($(compgen -W \"auto cpu cuda cuda:0\" -- \"$current\")); return ;;\n"
         "    --registration) COMPREPLY=($(compgen -W \"none rigid nonrigid\" -- \"$current\")); return ;;\n"
         "    --response) COMPREPLY=($(compgen -W \"noise-calibrated frangi sato jerman\" -- \"$current\")); return ;;\n"
         "    completion) COMPREPLY=($(compgen -W \"bash\" -- \"$current\")); return ;;\n"
         "    phantom) COMPREPLY=($(compgen -W \"tubes foot\" -- \"$current\")); return ;;\n"
         "  esac\n"
         "  case $command in\n"
         "    '') words=\"" +
         names + option_names(app) + "\" ;;\n" + cases +
         "  esac\n"
         "  case $current in\n"
         "    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;;\n"
         "    *) if [ -z \"$command\" ]; then COMPREPLY=($(compgen -W \"$words\" -- \"$current\")); fi ;;\n"
         "  esac\n"
         "}\n"
         "complete -o default -F _cinelumen cinelumen\n";
}

int run_program(int argc, char** argv) {
  CLI::App app("CineLumen: X-ray angiography runs subtracted, their vessels found and measured.\nResearch software, not a medical device.");
  app.name("cinelumen");
  GlobalOptions global;
  Command command;
  app.set_version_flag("--version", std::string("cinelumen ") + CINELUMEN_VERSION + " (" + CINELUMEN_COMMIT + ")");
  CLI::Option* quiet = app.add_flag("-q,--quiet", global.quiet, "Errors only: no progress, warnings or summary");
  app.add_flag("-v,--verbose", global.verbose, "Say what is done and how long it took, on stderr")->excludes(quiet);
  app.add_flag("--json", global.json, "The summary as JSON on stdout");
  app.require_subcommand(1);
  app.fallthrough();
  add_analyze_command(app, global, command);
  add_compare_command(app, global, command);
  add_stream_command(app, global, command);
  add_info_command(app, global, command);
  add_phantom_command(app, global, command);
  CLI::App* completion = app.add_subcommand("completion", "Print shell completion: eval \"$(cinelumen completion bash)\"");
  std::string shell = "bash";
  completion->add_option("SHELL", shell, "bash")->check(CLI::IsMember({"bash"}))->capture_default_str();
  completion->callback([&] { command = [&] { return std::fputs(bash_completion(app).c_str(), stdout) < 0 ? no_output : done; }; });

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    const std::vector<std::string> unknown = app.remaining();
    if (app.get_subcommands().empty() && !unknown.empty())
      return fail(wrong_usage, unknown.front() + ": no such subcommand or option; see cinelumen --help");
    return fail(wrong_usage, std::string(error.what()) + "; see cinelumen --help");
  }
  return command();
}

}  // namespace
}  // namespace cinelumen

int main(int argc, char** argv) {
  using namespace cinelumen;
#if defined(__x86_64__)
  // The kernels are built for x86-64-v3 at least; without this they would end in an illegal instruction.
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
    return fail(no_device, "this processor has no AVX2 and FMA (x86-64-v3, made since about 2013), which the kernels need");
#endif
  try {
    const int code = run_program(argc, argv);
    if (std::fflush(stdout) != 0) return fail(no_output, std::string("standard output: ") + std::strerror(errno));
    return code;
  } catch (const InputError& error) {
    return fail(bad_input, error.what());
  } catch (const std::invalid_argument& error) {
    return fail(wrong_usage, error.what());
  } catch (const DeviceError& error) {
    return fail(no_device, error.what());
  } catch (const OutputError& error) {
    return fail(no_output, error.what());
  } catch (const std::bad_alloc&) {
    return fail(bad_input, "out of memory: the run is too large for this machine; try a part of it with --frames");
  } catch (const std::exception& error) {
    return fail(bad_input, error.what());
  }
}
