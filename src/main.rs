//! The binary: parse the command line, run one subcommand, exit with its code.

fn main() -> std::process::ExitCode {
    grpo_tui::cli::main()
}
