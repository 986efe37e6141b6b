//! The bundled model behind HTTP, without the command line: `cargo run --release -p alitok-server
//! --example serve [ADDRESS [KEYS]]`.

use std::{error::Error, path::Path};

use files::Home;
use model::Model;
use server::{Keys, Server, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let home = Home::find(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))));
    let mut settings = Settings::new(vec![("mini".to_owned(), Model::named("mini", &home)?)]);
    let mut arguments = std::env::args().skip(1);
    if let Some(address) = arguments.next() {
        settings.listen = address;
    }
    settings.keys = arguments.next().map(Keys::read).transpose()?;
    let server = Server::bind(settings).await?;
    let address = server.address();
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    #[allow(clippy::print_stdout)] // it is a program
    let ready = || println!("http://{address}");
    Ok(server.run(stop, ready).await?)
}
