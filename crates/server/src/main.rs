//! `starling`: the command line of the server.

fn main() -> std::process::ExitCode {
    starling::cli::main()
}
