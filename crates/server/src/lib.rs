//! Pictures over HTTP, and a page to play with.
//!
//! [`Server`] answers OpenAI's images API, an API of our own that tells of every row, and what is needed
//! to run it: `/health`, `/ready`, `/metrics`, `/openapi.json`. At `/` there is a page. It stands on
//! [`pipeline`] alone and needs no Burn.
//!
//! ```no_run
//! use files::Home;
//! use model::Model;
//! use server::{Server, Settings};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::named("mini", &Home::find(None))?;
//! let server = Server::bind(Settings::new(vec![("mini".to_owned(), model)])).await?;
//! let address = server.address();
//! server.run(std::future::pending(), || println!("http://{address}")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! One thread owns a model's generator ([`pipeline::Drawing`]). Requests wait in a bounded queue that is
//! fair between clients, and join and leave between two tokens; a picture is the same whatever else is
//! drawn. A request whose client has left is cancelled before the next token.

mod app;
mod batcher;
mod body;
mod error;
mod keys;
mod metrics;
mod models;
mod native;
mod openai;
mod picture;
mod queue;
mod request;
mod serve;
mod session;

pub use app::openapi;
pub use error::ServerError;
pub use keys::{Keys, KeysError};
pub use serve::{Server, Settings};
