//! The program `alitok`: arguments, progress and exit codes. What it does is in the libraries.
//!
//! Without the feature `reference` it has no Burn, compiles in a fraction of the time, and hands what
//! needs Burn over to the program `alitok-reference`, which has the feature.

// Arguments of verbs that are handed over are read by the other program.
#![cfg_attr(not(feature = "reference"), allow(dead_code))]

mod args;
mod commands;
#[cfg(not(feature = "reference"))]
mod hand_over;
mod images;
mod interrupt;
mod machine;
mod models;
mod processes;
mod progress;
#[cfg(feature = "reference")]
mod reference;
mod sheet;
mod sources;
mod tuning;

use std::process::ExitCode;

use clap::Parser;

/// Burn's CPU backend allocates every output afresh; the system's allocator returns such blocks
/// to the kernel each time, which costs a quarter of a training step in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Does what the command line of this process says, and returns what it ends with: 0, 1 after an error,
/// 2 for wrong arguments, 130 or 143 after a signal.
pub fn main() -> ExitCode {
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
