//! `alitok` with Burn, to which the program without it hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    app::main()
}
