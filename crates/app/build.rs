//! Hands the facts of the build to the program (`alitok --version --verbose` prints them), and the names of what is
//! bundled, which shells complete.
#![allow(clippy::print_stdout)] // this is how a build script talks to Cargo

use std::{env, path::Path, process::Command};

/// What a program prints on its first line, if it can be run and succeeds.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = first_line(&compiler, &["--version"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=ALITOK_RUSTC={version}");
    println!("cargo:rustc-env=ALITOK_TARGET={}", env::var("TARGET").unwrap_or_default());
    // A source archive has no revision, and a machine may have no git.
    if let Some(revision) = first_line("git", &["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=ALITOK_REVISION={revision}");
        // Each commit appends to this file.
        if let Some(log) = first_line("git", &["rev-parse", "--git-path", "logs/HEAD"])
            && Path::new(&log).exists()
        {
            println!("cargo:rerun-if-changed={log}");
        }
    }
    bundle::toml_files("../../recipes", "recipes")?;
    bundle::toml_files("../../protocols", "protocols")
}
