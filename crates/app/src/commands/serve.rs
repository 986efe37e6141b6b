//! `alitok serve`

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pipeline::Device;
use server::{Keys, Server, Settings};

use crate::{
    args::{BatchArgs, ComputeArgs, DecoderArgs},
    interrupt, models, progress, tuning,
};

/// Draw pictures over HTTP, with a page to play with
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok serve
  alitok serve --model mini --model faces=runs/faces --listen 0.0.0.0:8080 --api-key-file keys
  curl http://127.0.0.1:8080/v1/pictures -H 'Content-Type: application/json' \\
       -d '{\"class\": \"Flags\", \"seed\": 1}'

docs/serve.md says how to run it as a service.")]
pub(crate) struct ServeArgs {
    /// `mini` (bundled), a model folder or a run, which its folder's name is the id of, or `ID=FOLDER`.
    /// May be given several times: the first is loaded at start, others when somebody asks for them.
    #[arg(long, default_value = "mini", value_name = "[ID=]FOLDER")]
    model: Vec<String>,
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: String,
    /// File with a key a line, `KEY [NAME] [pictures=N]`; KEY may be `sha256:` and its hash. Default:
    /// everybody may ask.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Pictures that may wait for each model; more are refused with status 429.
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_queue: u32,
    /// Pictures that may wait or be drawn at a time for one client: a key, or an address. Default: as
    /// many as the queue holds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_per_client: Option<u32>,
    /// Seconds after which a request is given up.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    deadline: u32,
    /// Most megabytes of an uploaded picture.
    #[arg(long, default_value_t = 20, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_upload: u32,
    /// Most megapixels of an uploaded picture.
    #[arg(long, default_value_t = 50, value_name = "MP", value_parser = clap::value_parser!(u32).range(1..=150))]
    max_megapixels: u32,
    /// Megabytes that loaded models may take, by estimate: models that nobody uses are let go for others.
    /// Default: no limit.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    memory_limit: Option<u32>,
    /// Origin of a web page elsewhere that may ask, such as `https://example.org`; `*` for all. May be
    /// given several times. Default: none.
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Take the last address of X-Forwarded-For for the client's: right behind one reverse proxy.
    #[arg(long)]
    behind_proxy: bool,
    /// How the log is written. Default: text on a terminal, else JSON.
    #[arg(long, value_enum)]
    log: Option<LogFormat>,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    decoder: DecoderArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line a request, for people.
    Text,
    /// An object a line, for programs.
    Json,
    /// Warnings alone.
    Quiet,
}

pub(crate) fn run(args: &ServeArgs, device: Option<Device>) -> Result<()> {
    if let Some(device @ Device::Reference { .. }) = device {
        bail!("a server draws on the device `cpu` or `gpu`, not on `{device}`; leave --device out");
    }
    let mut opened = Vec::new();
    for name in &args.model {
        let (id, folder) = match name.split_once('=') {
            Some((id, folder)) if !id.is_empty() => (id.to_owned(), folder),
            _ => (id_of(name), name.as_str()),
        };
        opened.push((id, models::open(folder)?));
    }
    let megabytes = |count: u32| u64::from(count) << 20;
    let mut settings = Settings {
        compute: args.compute.compute(device)?,
        decoder: args.decoder.kind(),
        listen: args.listen.clone(),
        keys: args.api_key_file.as_ref().map(Keys::read).transpose().context("--api-key-file")?,
        batch: args.batch.batch as usize,
        max_queue: args.max_queue as usize,
        client_limit: args.max_per_client.map(|count| count as usize),
        deadline: Duration::from_secs(args.deadline.into()),
        max_upload: megabytes(args.max_upload) as usize,
        max_pixels: args.max_megapixels as usize * 1_000_000,
        memory_limit: args.memory_limit.map(megabytes),
        cors: args.cors.clone(),
        behind_proxy: args.behind_proxy,
        ..Settings::new(opened)
    };
    // Archives and containers have the file, a source tree does not.
    let licences = models::home().path("THIRD-PARTY-LICENSES.md").ok();
    if let Some(text) = licences.and_then(|path| std::fs::read_to_string(path).ok()) {
        settings.licences = text;
    }
    log(args.log);
    tuning::for_many_connections();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(tuning::threads().clamp(1, 4))
        .enable_all()
        .build()?;
    runtime.block_on(serve(settings))?;
    // Handlers that still decode do not hold the end back.
    runtime.shutdown_background();
    bail!("shut down: requests in progress were answered, or their streams ended")
}

/// Serves until the process is asked to end.
async fn serve(settings: Settings) -> Result<()> {
    interrupt::will_finish("finishing what is being drawn; the same again ends at once");
    let server = Server::bind(settings).await?;
    let address = server.address();
    let stop = async {
        while !interrupt::is_asked() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Where standard output is closed there is nobody to tell.
    let ready = || drop(progress::result(&format!("http://{address}")));
    Ok(server.run(stop, ready).await?)
}

/// What a model is called: the bundled one's name, or that of its folder, or that of the run.
fn id_of(name: &str) -> String {
    let path = PathBuf::from(name);
    let path = path.canonicalize().unwrap_or(path);
    path.file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Writes the log to standard error.
fn log(format: Option<LogFormat>) {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let level = match format {
        LogFormat::Quiet => tracing::Level::WARN,
        _ => tracing::Level::INFO,
    };
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(terminal);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text | LogFormat::Quiet => log.init(),
    }
}
