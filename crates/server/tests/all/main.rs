//! What must hold of the server, asked over real connections.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod api;
mod bad_input;
mod client;
mod operation;
mod words;

use std::sync::LazyLock;

use fixtures::home;
use model::Model;
use pipeline::{Compute, Decode, Draw, Drawing, SamplingChanges, class_requests, sampling};
use server::Settings;

use client::Running;

static MODEL: LazyLock<Model> = LazyLock::new(|| Model::named("mini", &home()).unwrap());

/// A server that several tests ask.
static SHARED: LazyLock<Running> = LazyLock::new(|| Running::start(settings()));

fn settings() -> Settings {
    Settings {
        compute: compute(),
        licences: "Everybody's.\n".to_owned(),
        ..Settings::new(vec![("mini".to_owned(), MODEL.clone())])
    }
}

/// One pool for all servers of this process.
fn compute() -> Compute {
    static COMPUTE: LazyLock<Compute> = LazyLock::new(Compute::default);
    COMPUTE.clone()
}

fn drawer() -> &'static dyn Draw {
    static DRAWER: LazyLock<Box<dyn Draw>> = LazyLock::new(|| compute().drawer(&MODEL).unwrap());
    &**DRAWER
}

fn decoder() -> &'static dyn Decode {
    static DECODER: LazyLock<Box<dyn Decode>> =
        LazyLock::new(|| compute().decoder(&MODEL, None).unwrap());
    &**DECODER
}

/// The tokens and the PNG of a class's pictures as `alitok generate` draws them, one at a time.
fn expected(
    class: usize,
    count: usize,
    seed: u64,
    changes: &SamplingChanges,
) -> Vec<(Vec<u16>, Vec<u8>)> {
    let requests = class_requests(&[class], count, seed);
    let sampling = sampling(&MODEL, changes).unwrap();
    let drawing = Drawing::of(drawer(), &requests, &sampling, 1).unwrap();
    let png = |tokens: Vec<u16>| {
        let bytes = decoder().decode(&tokens).unwrap().encode_png();
        (tokens, bytes)
    };
    drawing.tokens().unwrap().into_iter().map(png).collect()
}
