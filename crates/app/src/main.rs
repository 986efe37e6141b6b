//! The program `alitok`. It alone knows the command line and the devices that are compiled in;
//! all else is in the libraries.

mod args;
mod commands;
mod compute;
mod device;
mod extractor;
mod images;
mod models;
mod parts;
mod processes;
mod progress;
mod protocol;
mod reconstruction;
mod token_file;
mod tuning;

use std::process::ExitCode;

use clap::Parser;

/// Burn's CPU backend allocates every output afresh; the system's allocator returns such blocks
/// to the kernel each time, which costs a quarter of a training step in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match commands::run(commands::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::error(&error);
            ExitCode::FAILURE
        }
    }
}
