//! Gathers what comes with the package, for maturin to pack beside its Python files.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// What the package needs of the bundled things, below the root of the repository.
const BUNDLED: [&str; 3] = ["models/mini", "models/efficientnet-lite0", "data"];

fn main() -> io::Result<()> {
    // Python's own names are resolved when it loads the library.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "macos") {
        println!("cargo::rustc-cdylib-link-arg=-undefined");
        println!("cargo::rustc-cdylib-link-arg=dynamic_lookup");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it")).join("bundled");
    for folder in BUNDLED {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        fs::create_dir_all(out.join(folder))?;
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            let to = out.join(folder).join(entry.file_name());
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), to)?;
            }
        }
    }
    Ok(())
}
