//! Handing a command line over to the program that has Burn.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use pixels::PixelsError;

use crate::progress;

/// The other program, beside this one.
const PROGRAM: &str = "alitok-reference";

/// Whether this is the error of a program that lacks what the other has.
pub(crate) fn mends(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PixelsError::WithoutParquet { .. }))
}

/// Gives this process's arguments to the program with Burn, which goes on in its place. In a checkout
/// Cargo brings that program up to date first, so that nobody trains with yesterday's.
///
/// # Errors
/// If there is no such program and it cannot be compiled here, or it cannot be started.
pub(crate) fn to_program_with_reference() -> Result<()> {
    let own = env::current_exe().context("cannot tell where this program is")?;
    let program = own.with_file_name(format!("{PROGRAM}{}", env::consts::EXE_SUFFIX));
    if let Some(build) = Build::of(&own) {
        build.bring_up_to_date(program.is_file())?;
    } else if !program.is_file() {
        bail!(
            "this alitok draws, encodes and serves; what was asked for needs {PROGRAM} beside it, or an \
             alitok that was built with `cargo build --release --features reference`"
        );
    }
    let mut command = Command::new(&program);
    command.args(env::args_os().skip(1));
    become_it(command).with_context(|| format!("cannot start {}", program.display()))
}

/// Where Cargo has built this program.
struct Build {
    workspace: PathBuf,
    target: PathBuf,
    profile: String,
}

impl Build {
    /// Of a program that is still where Cargo put it, with its sources there, too.
    fn of(program: &Path) -> Option<Self> {
        let folder = program.parent()?;
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let is_built_here =
            folder.join(".fingerprint").is_dir() && workspace.join("Cargo.toml").is_file();
        is_built_here.then(|| Self {
            workspace,
            target: folder.parent().unwrap_or(folder).to_owned(),
            profile: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        })
    }

    fn bring_up_to_date(&self, exists: bool) -> Result<()> {
        if !exists {
            progress::note(
                "this needs the whole program, which is compiled now, once; that takes some minutes",
            );
        }
        // The folder of Cargo's profile `dev` has another name.
        let profile = if self.profile == "debug" { "dev" } else { &self.profile };
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--package", "alitok", "--bin", PROGRAM, "--features"]);
        // What this program has, the other has as well.
        cargo.arg(if cfg!(feature = "gpu") { "reference,gpu" } else { "reference" });
        cargo.args(["--profile", profile, "--target-dir"]).arg(&self.target);
        let status = cargo.current_dir(&self.workspace).stdin(Stdio::null()).status();
        match status {
            // A program that was taken from where Cargo is to where it is not.
            Err(_) if exists => Ok(()),
            Err(error) => Err(error).context("cannot start Cargo to compile what this needs"),
            Ok(status) => {
                ensure!(status.success(), "what this needs did not compile; Cargo has said why");
                Ok(())
            }
        }
    }
}

/// Replaces this process; returns only where that fails.
#[cfg(unix)]
fn become_it(mut command: Command) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

/// Runs the program and ends as it does.
#[cfg(not(unix))]
fn become_it(mut command: Command) -> std::io::Result<()> {
    let status = command.status()?;
    // Nothing of this process is left to do.
    #[allow(clippy::exit)]
    std::process::exit(status.code().unwrap_or(1))
}
