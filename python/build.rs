//! Gathers what comes with the package, for maturin to pack beside its Python files.

use std::{env, fs, io, path::PathBuf};

/// What the package needs of the bundled things, below their root.
const BUNDLED: [&str; 3] = ["models/mini", "models/efficientnet-lite0", "data"];

fn main() -> io::Result<()> {
    // Python's own names are resolved when it loads the library.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "macos") {
        println!("cargo::rustc-cdylib-link-arg=-undefined");
        println!("cargo::rustc-cdylib-link-arg=dynamic_lookup");
    }
    // As it is now: where the target folder came from another checkout, the script did, too.
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    // In a source distribution, and where a checkout has links; otherwise in the repository itself.
    let packed = here.join("bundled");
    let root = if packed.join(BUNDLED[0]).is_dir() { packed } else { here.join("..") };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it")).join("bundled");
    for folder in BUNDLED {
        let from = root.join(folder).canonicalize()?;
        println!("cargo::rerun-if-changed={}", from.display());
        fs::create_dir_all(out.join(folder))?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), out.join(folder).join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}
