//! The routes, and what stands before all of them.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowMethods, CorsLayer},
};
use tracing::Instrument;
use utoipa::{
    OpenApi, ToSchema,
    openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::{ApiError, ErrorBody, Refused, ServerError, json},
    keys::{Client, Keys},
    metrics::Metrics,
    models::Models,
    native, openai,
    session::{Sessions, new_id, shutting_down},
};

/// Uploads that are decoded at a time.
const UPLOADS: usize = 2;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What all requests share.
pub(crate) type App = Arc<Shared>;

/// See [`App`].
pub(crate) struct Shared {
    pub(crate) models: Models,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Metrics,
    pub(crate) keys: Option<Keys>,
    /// Most pictures that wait or are being drawn for a client at a time.
    pub(crate) client_limit: Option<usize>,
    pub(crate) behind_proxy: bool,
    pub(crate) deadline: Duration,
    pub(crate) max_upload: usize,
    pub(crate) max_pixels: usize,
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) licences: Bytes,
    pub(crate) phase: Phase,
}

/// Whether the server takes requests.
#[derive(Default)]
pub(crate) struct Phase {
    now: AtomicU8,
}

impl Phase {
    const READY: u8 = 1;
    const DRAINING: u8 = 2;

    pub(crate) fn set_ready(&self) {
        let _ = self.now.compare_exchange(0, Self::READY, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(crate) fn set_draining(&self) {
        self.now.store(Self::DRAINING, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), ApiError> {
        match self.now.load(Ordering::SeqCst) {
            Self::READY => Ok(()),
            Self::DRAINING => Err(shutting_down()),
            _ => Err(ApiError::unavailable("starting", "the model is still being loaded", 1)),
        }
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

pub(crate) fn uploads() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(UPLOADS))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AliTok",
        description = "Pictures over HTTP: OpenAI's images API, and an API that tells of every row.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "OpenAI", description = "What OpenAI's clients use"),
        (name = "AliTok", description = "Pictures row by row, completions, and the tokenizer's halves"),
        (name = "Operation", description = "For those who run the server"),
    )
)]
struct Document;

/// All routes, and the document that describes them.
fn routes() -> (Router<App>, utoipa::openapi::OpenApi) {
    let guarded = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(openai::generate))
        .routes(routes!(openai::list_models))
        .routes(routes!(openai::get_model))
        .routes(routes!(native::pictures))
        .routes(routes!(native::complete))
        .routes(routes!(native::encode_picture))
        .routes(routes!(native::decode))
        .routes(routes!(native::reconstruct))
        .routes(routes!(native::cancel));
    let open = OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics));
    let (router, mut document) = guarded.merge(open).split_for_parts();
    // Keys, where there are some, are OpenAI's.
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document
        .components
        .get_or_insert_with(Default::default)
        .security_schemes
        .insert("key".to_owned(), scheme.into());
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new("key", [""; 0])]);
    (router, document)
}

/// The description of all routes, as `/openapi.json` serves it.
pub fn openapi() -> String {
    // Made from types of our own.
    routes().1.to_pretty_json().unwrap_or_default()
}

/// The whole service.
pub(crate) fn service(app: &App, origins: &[String]) -> Result<Router, ServerError> {
    let (router, document) = routes();
    let document = document.to_pretty_json().unwrap_or_default();
    let openapi = move || async move {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document)
    };
    let mut router = router
        .route("/openapi.json", axum::routing::get(openapi))
        .route("/", axum::routing::get(page))
        .route("/licences", axum::routing::get(licences))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(app), before));
    if !origins.is_empty() {
        let origins = origins
            .iter()
            .map(|origin| {
                let wrong = || ServerError::Origin(origin.clone());
                if origin != "*" && !origin.contains("://") {
                    return Err(wrong());
                }
                origin.trim_end_matches('/').parse::<HeaderValue>().map_err(|_| wrong())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let any = origins.iter().any(|origin| origin == "*");
        let cors = CorsLayer::new()
            .allow_methods(AllowMethods::list([Method::GET, Method::POST, Method::DELETE]))
            .allow_headers(AllowHeaders::list([header::AUTHORIZATION, header::CONTENT_TYPE]))
            .expose_headers([header::RETRY_AFTER, REQUEST_ID.clone()])
            .max_age(Duration::from_secs(3600));
        router = router.layer(match any {
            true => cors.allow_origin(tower_http::cors::Any),
            false => cors.allow_origin(origins),
        });
    }
    Ok(router.with_state(Arc::clone(app)))
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::internal("a handler panicked; please report what was asked for").into_response()
}

async fn not_found(request: Request) -> ApiError {
    let message = format!(
        "there is nothing at {}; /openapi.json lists what there is",
        request.uri().path().chars().take(200).collect::<String>()
    );
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn wrong_method(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("{path} does not take {method}; /openapi.json says what it takes");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Gives each request an id, lets in who may, and writes down what became of it.
async fn before(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let sane = |id: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        (1..=128).contains(&id.len()) && id.bytes().all(plain)
    };
    let id = match given.filter(sane) {
        Some(id) => id.to_owned(),
        None => new_id("req").unwrap_or_default(),
    };
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(200).collect();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", id, client = tracing::field::Empty);
    let mut response = async {
        match admit(&app, &request, &route) {
            Ok(client) => {
                tracing::Span::current().record("client", &*client.id);
                request.extensions_mut().insert(client);
                next.run(request).await
            }
            Err(error) => error.into_response(),
        }
    }
    .instrument(span.clone())
    .await;
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    let refused = response.extensions().get::<Refused>().map(|refused| refused.0);
    span.in_scope(|| {
        let ms = took.as_secs_f64() * 1000.0;
        let code = refused.unwrap_or_default();
        // Probes ask every few seconds.
        if matches!(route.as_str(), "/health" | "/ready" | "/metrics") && status < 500 {
            tracing::debug!(%method, path, status, ms, "answered");
        } else {
            tracing::info!(%method, path, status, ms, code, "answered");
        }
    });
    app.metrics.answered(method_label(&method), &route, status, took);
    if let Some(code) = refused {
        app.metrics.refused(code);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    if let Ok(version) = HeaderValue::from_str(concat!("alitok/", env!("CARGO_PKG_VERSION"))) {
        response.headers_mut().insert(header::SERVER, version);
    }
    response
}

/// A label of few values: clients may make up methods.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Whom a request is from, unless it may not be made now.
fn admit(app: &App, request: &Request, route: &str) -> Result<Client, ApiError> {
    let anonymous = || Client { id: Arc::from(address(app, request)), limit: app.client_limit };
    if !route.starts_with("/v1/") {
        return Ok(anonymous());
    }
    let client = match &app.keys {
        None => anonymous(),
        Some(keys) => {
            let header = request.headers().get(header::AUTHORIZATION);
            let key = header.and_then(|header| header.to_str().ok()).and_then(|header| {
                let (scheme, key) = header.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
            });
            let client = key.and_then(|key| keys.client(key));
            let wrong = || {
                let message = match header {
                    None => "a key is needed: `Authorization: Bearer KEY`",
                    Some(_) => "this key is not known here",
                };
                ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
            };
            let client = client.ok_or_else(wrong)?;
            Client { id: Arc::clone(&client.id), limit: client.limit.or(app.client_limit) }
        }
    };
    app.phase.check()?;
    Ok(client)
}

/// The address that a request is from.
fn address(app: &App, request: &Request) -> String {
    let forwarded = || {
        // The last address is the one that our own proxy saw; those before it anybody can make up.
        let header = request.headers().get_all(&FORWARDED_FOR).iter().next_back()?;
        let last = header.to_str().ok()?.rsplit(',').next()?.trim();
        last.parse::<IpAddr>().ok()
    };
    let forwarded = if app.behind_proxy { forwarded() } else { None };
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    forwarded.or(peer).map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

/// The page.
async fn page() -> Response {
    // Only what stands in the file itself, and pictures that it makes.
    const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                          img-src data: blob:; connect-src 'self'; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, Html(include_str!("page.html"))).into_response()
}

/// The licences of what the program is made with, and of what comes with it.
async fn licences(State(app): State<App>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, app.licences.clone()).into_response()
}

/// How the server is.
#[derive(Serialize, Deserialize, ToSchema)]
struct Health {
    /// `ok`
    status: String,
}

fn ok() -> Response {
    json(StatusCode::OK, &Health { status: "ok".to_owned() })
}

/// Whether the process is alive
#[utoipa::path(get, path = "/health", tag = "Operation", responses((status = 200, body = Health)))]
async fn health() -> Response {
    ok()
}

/// Whether requests are taken
#[utoipa::path(
    get, path = "/ready", tag = "Operation",
    responses(
        (status = 200, body = Health),
        (status = 503, body = ErrorBody, description = "Starting or shutting down"),
    )
)]
async fn ready(State(app): State<App>) -> Result<Response, ApiError> {
    app.phase.check()?;
    Ok(ok())
}

/// Measures for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "Operation",
    responses((status = 200, content_type = "text/plain", body = String))
)]
async fn metrics(State(app): State<App>) -> Response {
    let (models, bytes) = app.models.memory();
    app.metrics.gauge("alitok_models_loaded").set(models as f64);
    app.metrics.gauge("alitok_models_bytes").set(bytes as f64);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}
