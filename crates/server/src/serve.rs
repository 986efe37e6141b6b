//! Listening, and ending in order.

use std::{
    convert::Infallible, future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::Model;
use pipeline::Compute;
use tokenizer::DecoderKind;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::{
    app::{self, App, Peer, Phase, Shared},
    error::{ApiError, ServerError},
    keys::Keys,
    metrics::Metrics,
    models::{Models, Options},
};

/// Most connections at a time; others wait until one is closed.
const CONNECTIONS: usize = 8192;
/// Most bytes of a request's head.
const HEAD: usize = 64 << 10;
/// How long a connection may take to send a request's head, and be silent between two requests. Longer
/// than reverse proxies keep idle connections, so that they close them and not we.
const SILENCE: Duration = Duration::from_secs(75);
/// How long a client may read nothing of an answer.
const STALLED: Duration = Duration::from_secs(60);
/// How long a connection that has asked nothing yet may take to do so after the end was asked for.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// How long requests in progress may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(7);
/// How long the last answers may take to reach their clients.
const FLUSH: Duration = Duration::from_secs(1);

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The models with their ids, at least one; each must draw classes or prompts. The first is loaded at start.
    pub models: Vec<(String, Model)>,
    /// What computes.
    pub compute: Compute,
    /// The decoder; each model's best if none is given.
    pub decoder: Option<DecoderKind>,
    /// The address, such as `127.0.0.1:8080`; port 0 takes a free one.
    pub listen: String,
    /// Who may ask; everybody if there are no keys.
    pub keys: Option<Keys>,
    /// Pictures that are drawn side by side.
    pub batch: usize,
    /// Pictures that may wait for each model.
    pub max_queue: usize,
    /// Most pictures that may wait or be drawn for one client at a time.
    pub client_limit: Option<usize>,
    /// Longest time that a request may take.
    pub deadline: Duration,
    /// Most bytes of an upload.
    pub max_upload: usize,
    /// Most pixels of an upload.
    pub max_pixels: usize,
    /// Most bytes of models in memory, as estimated.
    pub memory_limit: Option<u64>,
    /// Origins of other web pages that may ask; `*` for all.
    pub cors: Vec<String>,
    /// Whether the last address of `X-Forwarded-For` is the client's.
    pub behind_proxy: bool,
    /// What `/licences` shows, to which the page has a link: the licences of what the program is made
    /// with and of what comes with it.
    pub licences: String,
}

impl Settings {
    /// These models on this machine's processor, with the usual limits.
    pub fn new(models: Vec<(String, Model)>) -> Self {
        Self {
            models,
            compute: Compute::default(),
            decoder: None,
            listen: "127.0.0.1:8080".to_owned(),
            keys: None,
            batch: 16,
            max_queue: 256,
            client_limit: None,
            deadline: Duration::from_secs(600),
            max_upload: 20 << 20,
            max_pixels: 50_000_000,
            memory_limit: None,
            cors: Vec::new(),
            behind_proxy: false,
            licences:
                "MIT OR Apache-2.0. The licences of what this program is made with come with its \
                       releases.\n"
                    .to_owned(),
        }
    }
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    router: Router,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens. Until [`run`](Self::run) is called, connections wait.
    ///
    /// # Errors
    /// If a setting is wrong, or the address cannot be had.
    pub async fn bind(settings: Settings) -> Result<Self, ServerError> {
        let Settings { models, compute, decoder, listen, batch, max_queue, .. } = settings;
        let metrics = Metrics::new().map_err(std::io::Error::other)?;
        let memory_limit = settings.memory_limit;
        let options = Options { compute, decoder, batch, max_queue, memory_limit };
        let app = Arc::new(Shared {
            models: Models::new(models, options, &metrics)?,
            sessions: Arc::default(),
            metrics,
            keys: settings.keys,
            client_limit: settings.client_limit,
            behind_proxy: settings.behind_proxy,
            deadline: settings.deadline,
            max_upload: settings.max_upload,
            max_pixels: settings.max_pixels,
            uploads: app::uploads(),
            licences: settings.licences.into(),
            phase: Phase::default(),
        });
        let router = app::service(&app, &settings.cors)?;
        let refused = |source| ServerError::Listen { address: listen.clone(), source };
        let listener = TcpListener::bind(&listen).await.map_err(refused)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, app, router })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `stop` is ready, then ends in order: new requests are refused, those in
    /// progress may go on for some seconds, and then their streams are ended. `ready` is called once
    /// requests are taken.
    ///
    /// # Errors
    /// If the first model cannot be loaded.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> Result<(), ServerError> {
        let Self { listener, app, router, .. } = self;
        let (closing, close) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let accepting = tokio::spawn(accept(
            listener,
            router,
            Arc::clone(&app),
            Arc::clone(&connections),
            close,
        ));
        let upkeep = tokio::spawn(upkeep(Arc::clone(&app)));
        let first = &app.models.entries()[0];
        let mut stop = pin!(stop);
        let loaded = tokio::select! {
            loaded = app.models.load(first) => Some(loaded),
            () = &mut stop => None,
        };
        if let Some(loaded) = loaded {
            drop(loaded.map_err(|ApiError { message, .. }| ServerError::Models(message))?);
            app.phase.set_ready();
            ready();
            stop.await;
        }
        tracing::info!(requests = app.sessions.len(), "shutting down");
        app.phase.set_draining();
        let begun = Instant::now();
        // Connections without a request are closed after a moment, the others after their answer.
        let _ = closing.send(true);
        while app.sessions.len() > 0 && begun.elapsed() < DRAIN {
            sleep(Duration::from_millis(20)).await;
        }
        app.sessions.end_all();
        // All connections are closed when every permit can be had but the one that waits for the next.
        let _ = timeout(FLUSH, connections.acquire_many(CONNECTIONS as u32 - 1)).await;
        accepting.abort();
        upkeep.abort();
        tracing::info!(ms = begun.elapsed().as_millis() as u64, "shut down");
        Ok(())
    }
}

/// Takes in what measurements have gathered.
async fn upkeep(app: App) {
    loop {
        sleep(Duration::from_secs(5)).await;
        app.metrics.upkeep();
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    app: App,
    connections: Arc<Semaphore>,
    close: watch::Receiver<bool>,
) {
    let open = app.metrics.gauge("alitok_connections");
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // One that was closed before we came to it, or no more files may be open.
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, close, open) = (router.clone(), close.clone(), open.clone());
        tokio::spawn(async move {
            let _permit = permit;
            open.increment(1.0);
            connection(stream, peer, router, close).await;
            open.decrement(1.0);
        });
    }
}

/// Answers a connection's requests, one after the other.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut close: watch::Receiver<bool>,
) {
    // Events are small and should come at once.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let asked = Arc::new(Notify::new());
    let first = Arc::clone(&asked);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        first.notify_one();
        let router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|e| match e {})) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(SILENCE).max_buf_size(HEAD);
    // One that comes while the server drains hears so, and is closed.
    let late = *close.borrow();
    builder.keep_alive(!late);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(close.wait_for(|&close| close).await) }, if !late => {
            // The first request of a new connection may be on its way, and must get an answer.
            tokio::select! {
                ended = connection.as_mut() => ended,
                _ = timeout(FIRST_REQUEST, asked.notified()) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection broke");
    }
}
