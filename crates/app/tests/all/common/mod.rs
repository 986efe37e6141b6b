//! Running the program in a folder of its own.
#![allow(dead_code)] // each test file uses its part

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use pixels::Picture;
use safetensors::{Dtype, SafeTensors};

pub(crate) fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    path.canonicalize().unwrap()
}

/// The root of bundled things: this source tree.
pub(crate) fn home() -> files::Home {
    files::Home::at(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

pub(crate) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alitok"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs what must work; returns what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what must not work; returns what it said. Nothing may be left behind.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let before = self.files();
        let output = self.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} was accepted");
        assert!(!told.contains("panicked"), "{arguments:?}: {told}");
        assert_eq!(self.files(), before, "{arguments:?} left something behind: {told}");
        told
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                }
                found.push(path);
            }
        }
        let mut found = Vec::new();
        walk(self.folder.path(), &mut found);
        found.sort();
        found
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn picture(&self, name: &str) -> Vec<u8> {
        Picture::read(self.path(name)).unwrap().into_rgb()
    }
}

pub(crate) fn integers(file: &[u8], name: &str) -> Vec<i64> {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::I64, "{name}");
    view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

pub(crate) fn pictures_u8(file: &[u8], name: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::U8, "{name}");
    view.data().to_vec()
}
