//! Running the program in a folder of its own.
#![allow(dead_code)] // each test file uses its part

use std::{
    ops::Deref,
    process::{Command, Output},
};

pub(crate) use fixtures::{fixture, home};
use pixels::Picture;
use safetensors::{Dtype, SafeTensors};

pub(crate) struct Scratch {
    folder: fixtures::Scratch,
}

impl Deref for Scratch {
    type Target = fixtures::Scratch;

    fn deref(&self) -> &fixtures::Scratch {
        &self.folder
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { folder: fixtures::Scratch::new() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alitok"));
        command.args(arguments).current_dir(self.folder());
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
