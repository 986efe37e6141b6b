//! A model in a browser: what `page/worker.js` calls.
//!
//! It is a door like the command line and the server: a `Drawing` of `pipeline` draws, with the defaults that
//! all doors share, so that a class and a seed give the tokens that they give elsewhere. What goes in and
//! comes out is the JSON of the server's `/v1/pictures`, because the page is the server's.
#![cfg(target_family = "wasm")]

mod artist;
mod request;

pub use artist::{Artist, Session, describe_model};
