//! The program `alitok`: arguments, progress and exit codes. What it does is in the libraries.

mod args;
mod commands;
mod images;
mod interrupt;
mod machine;
mod models;
mod processes;
mod progress;
mod reference;
mod sources;
mod tuning;

use std::process::ExitCode;

use clap::Parser;

/// Burn's CPU backend allocates every output afresh; the system's allocator returns such blocks
/// to the kernel each time, which costs a quarter of a training step in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    progress::start_clock();
    let done = if asks_for_build_facts() {
        machine::report().and_then(|report| progress::result(&report))
    } else {
        commands::run(commands::Arguments::parse())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(code) = interrupt::code() {
                progress::note(&format!("{error:#}"));
                return ExitCode::from(code);
            }
            progress::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether the command line is `--version --verbose`: clap itself ends at `--version`.
fn asks_for_build_facts() -> bool {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments.sort();
    arguments == ["--verbose", "--version"]
        || arguments == ["--verbose", "-V"]
        || arguments == ["-V", "--verbose"]
}
