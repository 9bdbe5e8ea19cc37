//! The `qtrace` program: maps the library's result to an exit code, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    qtrace::cli::main()
}
