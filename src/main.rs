//! Hands over to [`millpond::cli`]; nothing else.

fn main() -> std::process::ExitCode {
    millpond::cli::main()
}
