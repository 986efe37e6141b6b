//! OpenAI's images API.

use std::{
    convert::Infallible,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::{
    app::App,
    body,
    error::{ApiError, ErrorBody, json},
    keys::Client,
    models::Entry,
    picture::Format,
    request::{Api, PictureRequest},
    session::{News, Preview, Session},
};

/// Pictures that were drawn.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Pictures {
    /// When, in seconds since 1970.
    created: u64,
    /// The pictures.
    data: Vec<PictureData>,
    /// Width and height in pixels.
    size: String,
    /// How the pictures are encoded.
    output_format: Format,
    /// `opaque`
    background: String,
    /// `standard`
    quality: String,
    /// Tokens that were read and drawn.
    usage: Usage,
    /// The model's id.
    model: String,
    /// The seed that was given or drawn.
    seed: u64,
}

/// A picture that was drawn.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct PictureData {
    /// The picture.
    b64_json: String,
    /// Which of the seed's pictures it is.
    index: u64,
}

/// Tokens that were read and drawn.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(crate) struct Usage {
    input_tokens: usize,
    output_tokens: usize,
    total_tokens: usize,
    input_tokens_details: InputDetails,
}

/// What the tokens that were read are.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(crate) struct InputDetails {
    text_tokens: usize,
    image_tokens: usize,
}

impl Usage {
    /// Of so many pictures with these tokens each, of which some were given.
    pub(crate) fn new(pictures: usize, length: usize, given: usize) -> Self {
        let [text, image, output] = [1, given, length - given].map(|count| count * pictures);
        Self {
            input_tokens: text + image,
            output_tokens: output,
            total_tokens: text + image + output,
            input_tokens_details: InputDetails { text_tokens: text, image_tokens: image },
        }
    }
}

/// The models that there are.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`
    object: String,
    data: Vec<ModelData>,
}

/// A model.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ModelData {
    id: String,
    /// `model`
    object: String,
    /// When it was written, in seconds since 1970.
    created: u64,
    /// `alitok`
    owned_by: String,
    /// The names of its classes; a class's number is its place. None of a model that reads prompts.
    classes: Vec<String>,
    /// Whether it draws what a prompt says; else a prompt is a class's name.
    reads_prompts: bool,
    /// Width of its pictures in pixels.
    width: usize,
    /// Height of its pictures in pixels.
    height: usize,
    /// Tokens of a picture: first the prefix, then the rows.
    tokens: usize,
    /// Tokens of the prefix.
    prefix: usize,
    /// Rows of tokens.
    rows: usize,
    /// Tokens of a row.
    columns: usize,
    /// Different tokens that there are.
    codes: usize,
    /// What is used where a request says nothing else.
    defaults: Defaults,
    /// Whether pictures of the first rows can be had.
    previews: bool,
    /// Whether it is in memory.
    loaded: bool,
}

/// Sampling options of a model.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Defaults {
    guidance: f64,
    guidance_power: f64,
    temperature: f64,
    top_k: usize,
    top_p: f64,
}

impl ModelData {
    fn new(entry: &Entry) -> Result<Self, ApiError> {
        let layout = entry.layout();
        let tokenizer = &entry.model.config.tokenizer;
        let sampling = entry.model.config.sampling;
        Ok(Self {
            id: entry.id.clone(),
            object: "model".to_owned(),
            created: entry.created,
            owned_by: "alitok".to_owned(),
            classes: entry.model.classes.to_vec(),
            reads_prompts: entry.prompts.is_some(),
            width: tokenizer.image.width,
            height: tokenizer.image.height,
            tokens: layout.len(),
            prefix: layout.prefix(),
            rows: layout.rows(),
            columns: layout.columns(),
            codes: tokenizer.codes,
            defaults: Defaults {
                guidance: sampling.guidance,
                guidance_power: sampling.guidance_power,
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                top_p: sampling.top_p,
            },
            previews: tokenizer.causal_decoder.is_some(),
            loaded: entry.is_loaded(),
        })
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

pub(crate) fn size(entry: &Entry) -> String {
    let image = entry.model.config.tokenizer.image;
    format!("{}x{}", image.width, image.height)
}

/// List the models
#[utoipa::path(
    get, path = "/v1/models", tag = "OpenAI",
    responses(
        (status = 200, body = ModelList),
        (status = 401, body = ErrorBody, description = "No valid key"),
    )
)]
pub(crate) async fn list_models(State(app): State<App>) -> Result<Response, ApiError> {
    let entries = app.models.entries().iter();
    let data = entries.map(|entry| ModelData::new(entry)).collect::<Result<_, _>>()?;
    Ok(json(StatusCode::OK, &ModelList { object: "list".to_owned(), data }))
}

/// Describe a model
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "OpenAI",
    params(("id" = String, Path, description = "The model's id")),
    responses(
        (status = 200, body = ModelData),
        (status = 400, body = ErrorBody, description = "The id is no text"),
        (status = 401, body = ErrorBody, description = "No valid key"),
        (status = 404, body = ErrorBody, description = "There is no such model"),
    )
)]
pub(crate) async fn get_model(
    State(app): State<App>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::param("id", error.body_text()))?;
    Ok(json(StatusCode::OK, &ModelData::new(app.models.entry(Some(&id))?)?))
}

/// Draw pictures
///
/// With `stream`, the answer is a stream of server-sent events `image_generation.partial_image` and
/// `image_generation.completed`, as OpenAI's.
#[utoipa::path(
    post, path = "/v1/images/generations", tag = "OpenAI",
    request_body = PictureRequest,
    responses(
        (status = 200, content(
            (Pictures = "application/json"),
            (StreamEvent = "text/event-stream"),
        )),
        (status = 400, body = ErrorBody, description = "A field is wrong; `param` says which"),
        (status = 401, body = ErrorBody, description = "No valid key"),
        (status = 404, body = ErrorBody, description = "There is no such model"),
        (status = 408, body = ErrorBody, description = "The body came too slowly"),
        (status = 413, body = ErrorBody, description = "The body is too large"),
        (status = 415, body = ErrorBody, description = "The body is no JSON"),
        (status = 422, body = ErrorBody, description = "The tokens are none of the model's"),
        (status = 429, body = ErrorBody, description = "Too many pictures wait; see Retry-After"),
        (status = 499, body = ErrorBody, description = "The request was cancelled"),
        (status = 503, body = ErrorBody, description = "Starting, shutting down, or out of memory"),
        (status = 504, body = ErrorBody, description = "The deadline has passed"),
    )
)]
pub(crate) async fn generate(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, ApiError> {
    let request: PictureRequest = body::json(request).await?;
    let entry = request.entry(&app.models)?;
    let plan = request.plan(entry, Api::OpenAi, app.deadline)?;
    let loaded = app.models.load(entry).await?;
    let session = app.sessions.begin(loaded, plan, &client)?;
    if session.plan.stream {
        return Ok(stream(session));
    }
    let mut answer = respond(session).await?;
    answer.data.sort_by_key(|picture| picture.index);
    Ok(json(StatusCode::OK, &answer))
}

/// Waits for all pictures.
async fn respond(mut session: Session) -> Result<Pictures, ApiError> {
    let plan = std::sync::Arc::clone(&session.plan);
    let entry = std::sync::Arc::clone(&session.loaded.entry);
    let mut data = Vec::with_capacity(plan.count);
    while let Some(news) = session.next().await {
        match news {
            News::Row { .. } => {}
            News::Finished { picture, base64, .. } => {
                data.push(PictureData { b64_json: base64, index: plan.index + picture as u64 })
            }
            News::Failed { error, .. } => return Err(error),
        }
    }
    Ok(Pictures {
        created: now(),
        data,
        size: size(&entry),
        output_format: plan.format,
        background: "opaque".to_owned(),
        quality: "standard".to_owned(),
        usage: Usage::new(plan.count, entry.layout().len(), plan.forced.len()),
        model: entry.id.clone(),
        seed: plan.seed,
    })
}

/// A server-sent event.
#[derive(ToSchema)]
#[allow(dead_code)] // it stands in the OpenAPI document alone
pub(crate) struct StreamEvent {
    /// Its name.
    event: String,
    /// An object in JSON.
    data: String,
}

/// The data of an event of OpenAI's stream.
#[derive(Serialize)]
struct OpenAiData<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    b64_json: &'a str,
    created_at: u64,
    size: String,
    output_format: Format,
    background: &'static str,
    quality: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_image_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    /// Which of the seed's pictures it is.
    index: u64,
    seed: u64,
}

/// Events as the pictures are drawn. Who stops reading cancels the rest.
fn stream(mut session: Session) -> Response {
    let (send, receive) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut partial = vec![0; session.plan.count];
        loop {
            let news = tokio::select! {
                news = session.next() => news,
                // The client has left.
                () = send.closed() => return,
            };
            let Some(news) = news else { return };
            let event = match event(&session, &mut partial, news) {
                Some(event) => event,
                None => continue,
            };
            if send.send(event).await.is_err() {
                return;
            }
        }
    });
    events(receive)
}

fn event(session: &Session, partial: &mut [usize], news: News) -> Option<Event> {
    let (plan, entry) = (&session.plan, &session.loaded.entry);
    let of = |kind, b64_json, picture: usize, partial_image_index, usage| OpenAiData {
        kind,
        b64_json,
        created_at: now(),
        size: size(entry),
        output_format: plan.format,
        background: "opaque",
        quality: "standard",
        partial_image_index,
        usage,
        index: plan.index + picture as u64,
        seed: plan.seed,
    };
    match news {
        News::Row { preview: None, .. } => None,
        News::Row { picture, preview: Some(Preview { base64, .. }), .. } => {
            let kind = "image_generation.partial_image";
            let number = partial[picture];
            partial[picture] += 1;
            Some(sse(kind, &of(kind, &base64, picture, Some(number), None)))
        }
        News::Finished { picture, base64, .. } => {
            let kind = "image_generation.completed";
            let length = entry.layout().len();
            let usage = Usage::new(1, length, plan.forced.len().min(length));
            Some(sse(kind, &of(kind, &base64, picture, None, Some(usage))))
        }
        News::Failed { error, .. } => Some(sse("error", &error.body())),
    }
}

/// A server-sent event with its data in JSON.
pub(crate) fn sse(name: &str, data: &impl Serialize) -> Event {
    // Our types have no maps with keys that are no text.
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

/// An answer of events.
pub(crate) fn events(mut receive: mpsc::Receiver<Event>) -> Response {
    let events = futures_util::stream::poll_fn(move |context| {
        receive.poll_recv(context).map(|event| event.map(Ok::<_, Infallible>))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    // nginx would hold events back until its buffer is full.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}
