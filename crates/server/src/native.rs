//! Our own API: pictures that are told of row by row, completions, and the tokenizer's halves.

use std::{path::Path as FilePath, sync::Arc};

use axum::{
    Extension,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use generator::Condition;
use pipeline::token_file;
use pixels::{Picture, crop::Crop};
use serde::{Deserialize, Serialize};
use tokens::CodebookIndex;
use tokio::{sync::mpsc, task::spawn_blocking};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::App,
    body,
    error::{ApiError, ErrorBody, json},
    keys::Client,
    models::{Entry, Loaded},
    openai::{StreamEvent, events, size, sse},
    picture::Format,
    request::{Api, PictureRequest, Plan},
    session::{News, Preview, Session, Timing},
};

/// Most pictures that are decoded from tokens at a time.
const MAX_DECODED: usize = 64;

/// A request that was taken: the first event of a stream.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Queued {
    /// `DELETE /v1/pictures/{id}` cancels it.
    id: String,
    /// The model's id.
    model: String,
    /// The number of the class, of a model that has classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<usize>,
    /// The name of the class, of a model that has classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    class_name: Option<String>,
    /// What was asked for in words, of a model that reads them.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    /// The seed that was given or drawn.
    seed: u64,
    /// Which of the seed's pictures is the first.
    index: u64,
    /// How many pictures.
    n: usize,
    /// How many pictures come before the last one of this request.
    position: usize,
    /// Width and height in pixels.
    size: String,
    /// Rows of tokens of a picture.
    rows: usize,
    guidance: f64,
    guidance_power: f64,
    temperature: f64,
    top_k: usize,
    top_p: f64,
}

/// A row of a picture (event `row`), or its prefix (event `prefix`, row 0).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Row {
    /// Which of the seed's pictures.
    index: u64,
    /// The row, from 1.
    row: usize,
    /// How many there are.
    rows: usize,
    /// The row's tokens.
    tokens: Vec<CodebookIndex>,
    /// The picture as far as it is drawn, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    preview: Option<PreviewData>,
}

/// The first rows of a picture.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PreviewData {
    b64_json: String,
    width: usize,
    height: usize,
    output_format: Format,
}

/// A picture that is ready.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Finished {
    /// Which of the seed's pictures.
    index: u64,
    /// Its tokens: the prefix, then row by row.
    tokens: Vec<CodebookIndex>,
    b64_json: String,
    output_format: Format,
    /// Width and height in pixels.
    size: String,
    timing: Timing,
}

/// A picture that will not come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failed {
    /// Which of the seed's pictures.
    index: u64,
    #[serde(flatten)]
    error: ErrorBody,
}

/// Pictures that were drawn, where no stream is wanted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Drawn {
    #[serde(flatten)]
    request: Queued,
    data: Vec<Finished>,
}

fn queued(session: &Session) -> Queued {
    let Plan { condition, seed, index, count, sampling, .. } = &*session.plan;
    let entry = &session.loaded.entry;
    Queued {
        id: session.id.clone(),
        model: entry.id.clone(),
        class: condition.label(),
        class_name: condition
            .label()
            .map(|label| entry.model.classes.get(label).cloned().unwrap_or_default()),
        prompt: match condition {
            Condition::Prompt(prompt) => Some(prompt.text.clone()),
            _ => None,
        },
        seed: *seed,
        index: *index,
        n: *count,
        position: session.position,
        size: size(entry),
        rows: entry.model.config.tokenizer.layout().rows(),
        guidance: sampling.guidance,
        guidance_power: sampling.guidance_power,
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
    }
}

/// Answers with the session's pictures.
async fn answer(session: Session) -> Result<Response, ApiError> {
    if session.plan.stream { Ok(stream(session)) } else { collect(session).await }
}

fn finished(
    session: &Session,
    picture: usize,
    tokens: Vec<CodebookIndex>,
    base64: String,
    timing: Timing,
) -> Finished {
    Finished {
        index: session.plan.index + picture as u64,
        tokens,
        b64_json: base64,
        output_format: session.plan.format,
        size: size(&session.loaded.entry),
        timing,
    }
}

async fn collect(mut session: Session) -> Result<Response, ApiError> {
    let mut data = Vec::with_capacity(session.plan.count);
    while let Some(news) = session.next().await {
        match news {
            News::Row { .. } => {}
            News::Finished { picture, tokens, base64, timing } => {
                data.push(finished(&session, picture, tokens, base64, timing));
            }
            News::Failed { error, .. } => return Err(error),
        }
    }
    data.sort_by_key(|picture| picture.index);
    Ok(json(StatusCode::OK, &Drawn { request: queued(&session), data }))
}

fn stream(mut session: Session) -> Response {
    let (send, receive) = mpsc::channel(4);
    tokio::spawn(async move {
        if send.send(sse("queued", &queued(&session))).await.is_err() {
            return;
        }
        loop {
            let news = tokio::select! {
                news = session.next() => news,
                // The client has left.
                () = send.closed() => return,
            };
            let Some(news) = news else { return };
            if send.send(event(&session, news)).await.is_err() {
                return;
            }
        }
    });
    events(receive)
}

fn event(session: &Session, news: News) -> axum::response::sse::Event {
    let plan = &session.plan;
    let index = |picture: usize| plan.index + picture as u64;
    match news {
        News::Row { picture, row, tokens, preview } => {
            let layout = session.loaded.entry.model.config.tokenizer.layout();
            let start = if row == 0 { 0 } else { tokens.len() - layout.columns() };
            let preview = preview.map(|Preview { width, height, base64 }| PreviewData {
                b64_json: base64,
                width,
                height,
                output_format: plan.format,
            });
            let tokens = tokens[start..].to_vec();
            let rows = layout.rows();
            let name = if row == 0 { "prefix" } else { "row" };
            sse(name, &Row { index: index(picture), row, rows, tokens, preview })
        }
        News::Finished { picture, tokens, base64, timing } => {
            sse("finished", &finished(session, picture, tokens, base64, timing))
        }
        News::Failed { picture, error } => {
            sse("failed", &Failed { index: index(picture), error: error.body() })
        }
    }
}

/// Draw pictures and tell of every row
///
/// The answer is a stream of server-sent events: `queued`, then `prefix` and `row` as each is decided,
/// with `previews` a picture of the rows so far, and `finished` or `failed` for each picture. A client
/// that stops reading cancels what is not drawn yet. `tokens` and `rows` keep the beginning of a picture
/// and draw the rest anew. With `"stream": false` the pictures come together, in JSON.
#[utoipa::path(
    post, path = "/v1/pictures", tag = "AliTok",
    request_body = PictureRequest,
    responses(
        (status = 200, content((StreamEvent = "text/event-stream"), (Drawn = "application/json"))),
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
pub(crate) async fn pictures(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, ApiError> {
    let request: PictureRequest = body::json(request).await?;
    let entry = request.entry(&app.models)?;
    let plan = request.plan(entry, Api::Native, app.deadline)?;
    let loaded = app.models.load(entry).await?;
    answer(app.sessions.begin(loaded, plan, &client)?).await
}

/// Keep the top of a picture and draw the rest
///
/// Like `POST /v1/pictures`, with the fields in a form beside the file `image`, or in JSON with `image`
/// in base64. `rows` says how many rows of patches to keep, at least 1. The picture is cropped to its
/// centre and scaled to the model's size.
#[utoipa::path(
    post, path = "/v1/completions/pictures", tag = "AliTok",
    request_body(content(
        (CompletionForm = "multipart/form-data"),
        (CompletionForm = "application/json"),
    )),
    responses(
        (status = 200, content((StreamEvent = "text/event-stream"), (Drawn = "application/json"))),
        (status = 400, body = ErrorBody, description = "A field is wrong; `param` says which"),
        (status = 401, body = ErrorBody, description = "No valid key"),
        (status = 404, body = ErrorBody, description = "There is no such model"),
        (status = 408, body = ErrorBody, description = "The body came too slowly"),
        (status = 413, body = ErrorBody, description = "The body or the picture is too large"),
        (status = 415, body = ErrorBody, description = "The body is neither a form nor JSON"),
        (status = 422, body = ErrorBody, description = "The file is no picture"),
        (status = 429, body = ErrorBody, description = "Too many pictures wait; see Retry-After"),
        (status = 499, body = ErrorBody, description = "The request was cancelled"),
        (status = 503, body = ErrorBody, description = "Starting, shutting down, or out of memory"),
        (status = 504, body = ErrorBody, description = "The deadline has passed"),
    )
)]
pub(crate) async fn complete(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut request, image): (PictureRequest, _) = body::upload(request, app.max_upload).await?;
    let entry = request.entry(&app.models)?;
    let layout = entry.layout();
    let rows = request.rows.take();
    let Some(keep) = rows
        .and_then(|rows| usize::try_from(rows).ok())
        .filter(|rows| (1..=layout.rows()).contains(rows))
    else {
        let given = rows.map_or("missing".to_owned(), |rows| rows.to_string());
        let message = format!("`rows` is {given}; keep 1 to {} rows of patches", layout.rows());
        return Err(ApiError::param("rows", message));
    };
    if request.tokens.is_some() {
        let message = "give a picture or tokens; POST /v1/pictures takes tokens";
        return Err(ApiError::param("tokens", message));
    }
    let mut plan = request.plan(entry, Api::Native, app.deadline)?;
    let loaded = app.models.load(entry).await?;
    plan.forced = encode(&app, &loaded, image).await?;
    plan.forced.truncate(layout.len_of_rows(keep));
    answer(app.sessions.begin(loaded, plan, &client)?).await
}

/// A picture and what to draw below what is kept of it.
#[derive(ToSchema)]
#[allow(dead_code)] // it stands in the OpenAPI document alone
pub(crate) struct CompletionForm {
    /// The picture: a file, or in base64.
    #[schema(format = Binary)]
    image: String,
    /// How many rows of patches to keep.
    #[schema(minimum = 1)]
    rows: u64,
    /// What the picture shows, in words; a class's name, of a model of classes. Needed unless `class` is
    /// given.
    prompt: Option<String>,
    /// A class's name or number.
    class: Option<String>,
    /// How many completions.
    #[schema(minimum = 1, maximum = 10)]
    n: Option<u64>,
    model: Option<String>,
    seed: Option<u64>,
    guidance: Option<f64>,
    guidance_power: Option<f64>,
    temperature: Option<f64>,
    top_k: Option<u64>,
    top_p: Option<f64>,
    previews: Option<u64>,
    output_format: Option<Format>,
    stream: Option<bool>,
    deadline: Option<f64>,
}

/// A picture to encode.
#[derive(ToSchema)]
#[allow(dead_code)] // it stands in the OpenAPI document alone
pub(crate) struct UploadForm {
    /// The picture: a file, or in base64.
    #[schema(format = Binary)]
    image: String,
    model: Option<String>,
    output_format: Option<Format>,
    #[schema(minimum = 0, maximum = 100)]
    output_compression: Option<u64>,
}

/// Which model, and how pictures are encoded.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UploadFields {
    model: Option<String>,
    output_format: Option<Format>,
    output_compression: Option<u64>,
}

fn quality(percent: Option<u64>) -> Result<u8, ApiError> {
    match percent.unwrap_or(95) {
        quality @ 0..=100 => Ok(quality.max(1) as u8),
        other => {
            let message = format!("`output_compression` is {other}; give 0 to 100");
            Err(ApiError::param("output_compression", message))
        }
    }
}

/// The tokens of a picture that was sent.
async fn encode(
    app: &App,
    loaded: &Arc<Loaded>,
    image: axum::body::Bytes,
) -> Result<Vec<CodebookIndex>, ApiError> {
    let size = loaded.entry.model.config.tokenizer.image;
    // Large pictures take much memory while they are decoded.
    let turn = Arc::clone(&app.uploads).acquire_owned().await.map_err(ApiError::internal)?;
    let limit = app.max_pixels;
    let fitted = spawn_blocking(move || {
        let _turn = turn;
        let wrong = |error| ApiError::of_picture("image", &error);
        let picture = Picture::decode_within(&image, "image", limit).map_err(wrong)?;
        Crop::Center.fit(picture, size.width, size.height, "image").map_err(wrong)
    });
    let picture = fitted.await.map_err(ApiError::internal)??;
    loaded.with(move |loaded| loaded.encode(&picture), Ok).await
}

/// A picture's tokens.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Encoded {
    /// The model's id.
    model: String,
    /// The prefix, then row by row.
    tokens: Vec<CodebookIndex>,
    /// Tokens of the prefix.
    prefix: usize,
    /// Rows of tokens.
    rows: usize,
    /// Tokens of a row.
    columns: usize,
}

fn encoded(entry: &Entry, tokens: Vec<CodebookIndex>) -> Encoded {
    let layout = entry.model.config.tokenizer.layout();
    Encoded {
        model: entry.id.clone(),
        tokens,
        prefix: layout.prefix(),
        rows: layout.rows(),
        columns: layout.columns(),
    }
}

/// Turn a picture into tokens
///
/// The picture is cropped to its centre and scaled to the model's size.
#[utoipa::path(
    post, path = "/v1/encode", tag = "AliTok",
    request_body(content(
        (UploadForm = "multipart/form-data"),
        (UploadForm = "application/json"),
    )),
    responses(
        (status = 200, body = Encoded),
        (status = 400, body = ErrorBody, description = "A field is wrong; `param` says which"),
        (status = 401, body = ErrorBody, description = "No valid key"),
        (status = 404, body = ErrorBody, description = "There is no such model"),
        (status = 408, body = ErrorBody, description = "The body came too slowly"),
        (status = 413, body = ErrorBody, description = "The body or the picture is too large"),
        (status = 415, body = ErrorBody, description = "The body is neither a form nor JSON"),
        (status = 422, body = ErrorBody, description = "The file is no picture"),
        (status = 503, body = ErrorBody, description = "Starting, shutting down, or out of memory"),
    )
)]
pub(crate) async fn encode_picture(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    let (fields, image): (UploadFields, _) = body::upload(request, app.max_upload).await?;
    let entry = app.models.entry(fields.model.as_deref())?;
    let loaded = app.models.load(entry).await?;
    let tokens = encode(&app, &loaded, image).await?;
    Ok(json(StatusCode::OK, &encoded(entry, tokens)))
}

/// A picture after the tokenizer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Reconstructed {
    #[serde(flatten)]
    encoded: Encoded,
    b64_json: String,
    output_format: Format,
    /// Width and height in pixels.
    size: String,
}

/// Turn a picture into tokens and back
#[utoipa::path(
    post, path = "/v1/reconstruct", tag = "AliTok",
    request_body(content(
        (UploadForm = "multipart/form-data"),
        (UploadForm = "application/json"),
    )),
    responses(
        (status = 200, body = Reconstructed),
        (status = 400, body = ErrorBody, description = "A field is wrong; `param` says which"),
        (status = 401, body = ErrorBody, description = "No valid key"),
        (status = 404, body = ErrorBody, description = "There is no such model"),
        (status = 408, body = ErrorBody, description = "The body came too slowly"),
        (status = 413, body = ErrorBody, description = "The body or the picture is too large"),
        (status = 415, body = ErrorBody, description = "The body is neither a form nor JSON"),
        (status = 422, body = ErrorBody, description = "The file is no picture"),
        (status = 503, body = ErrorBody, description = "Starting, shutting down, or out of memory"),
    )
)]
pub(crate) async fn reconstruct(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    let (fields, image): (UploadFields, _) = body::upload(request, app.max_upload).await?;
    let entry = app.models.entry(fields.model.as_deref())?;
    let (format, quality) =
        (fields.output_format.unwrap_or_default(), quality(fields.output_compression)?);
    let loaded = app.models.load(entry).await?;
    let tokens = encode(&app, &loaded, image).await?;
    let own = tokens.clone();
    let b64_json = loaded
        .with(move |loaded| loaded.decode(&own), move |picture| format.encode(&picture, quality))
        .await?;
    let answer = Reconstructed {
        encoded: encoded(entry, tokens),
        b64_json,
        output_format: format,
        size: size(entry),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// Tokens of one picture, or of several.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TokenLists {
    One(Vec<i64>),
    Several(Vec<Vec<i64>>),
}

/// Tokens to decode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecodeRequest {
    /// The model's id; the first model if none is given.
    model: Option<String>,
    /// The tokens of a picture, or a list of them.
    #[schema(value_type = TokenLists)]
    tokens: TokenLists,
    /// How pictures are encoded.
    output_format: Option<Format>,
    /// Quality of a JPEG, in percent.
    #[schema(minimum = 0, maximum = 100)]
    output_compression: Option<u64>,
}

/// What a safetensors file does not say.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecodeQuery {
    /// Of a safetensors file: the model's id.
    model: Option<String>,
    /// Of a safetensors file: how pictures are encoded.
    output_format: Option<Format>,
    /// Of a safetensors file: quality of a JPEG, in percent.
    #[param(minimum = 0, maximum = 100)]
    output_compression: Option<u64>,
}

/// Pictures that were decoded.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Decoded {
    /// The model's id.
    model: String,
    data: Vec<DecodedPicture>,
    output_format: Format,
    /// Width and height in pixels.
    size: String,
}

/// A picture that was decoded.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DecodedPicture {
    b64_json: String,
}

/// Turn tokens into pictures
///
/// Tokens come in JSON, or as a safetensors file with `tokens [N, L]`, as `alitok encode` writes it; then
/// the other fields stand in the query.
#[utoipa::path(
    post, path = "/v1/decode", tag = "AliTok",
    params(DecodeQuery),
    request_body(content(
        (DecodeRequest = "application/json"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, body = Decoded),
        (status = 400, body = ErrorBody, description = "A field is wrong; `param` says which"),
        (status = 401, body = ErrorBody, description = "No valid key"),
        (status = 404, body = ErrorBody, description = "There is no such model"),
        (status = 408, body = ErrorBody, description = "The body came too slowly"),
        (status = 413, body = ErrorBody, description = "The body is too large"),
        (status = 415, body = ErrorBody, description = "The body is neither JSON nor a file"),
        (status = 422, body = ErrorBody, description = "The tokens are none of the model's"),
        (status = 503, body = ErrorBody, description = "Starting, shutting down, or out of memory"),
    )
)]
pub(crate) async fn decode(
    State(app): State<App>,
    query: Result<Query<DecodeQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::param("query", error.body_text()))?;
    let binary = ["application/octet-stream", "application/vnd.safetensors"];
    let (kind, content) = body::json_or(request, &binary, body::MAX_JSON).await?;
    let (entry, tokens, format, percent) = if kind == "application/json" {
        let request: DecodeRequest = body::parse(&content)?;
        let entry = app.models.entry(request.model.as_deref().or(query.model.as_deref()))?;
        let lists = match request.tokens {
            TokenLists::One(list) => vec![list],
            TokenLists::Several(lists) => lists,
        };
        let vocabulary = entry.vocabulary();
        let tokens = lists
            .iter()
            .map(|list| list.iter().map(|&token| vocabulary.token(token)).collect())
            .collect::<Result<Vec<Vec<_>>, _>>()
            .map_err(|error| ApiError::content("tokens", error.to_string()))?;
        let format = request.output_format.or(query.output_format);
        (entry, tokens, format, request.output_compression.or(query.output_compression))
    } else {
        let entry = app.models.entry(query.model.as_deref())?;
        let (length, vocabulary) = (entry.layout().len(), entry.vocabulary());
        let name = FilePath::new("the body");
        let tokens = token_file::parse(&content, name, length, vocabulary)
            .map_err(|error| ApiError::content("tokens", error.to_string()))?;
        (entry, tokens, query.output_format, query.output_compression)
    };
    let length = entry.layout().len();
    if tokens.is_empty() || tokens.len() > MAX_DECODED {
        let message = format!("{} pictures; decode 1 to {MAX_DECODED} at a time", tokens.len());
        return Err(ApiError::param("tokens", message));
    }
    if let Some(wrong) = tokens.iter().find(|tokens| tokens.len() != length) {
        let message = format!("{} tokens are no picture: this model's have {length}", wrong.len());
        return Err(ApiError::content("tokens", message));
    }
    let (format, quality) = (format.unwrap_or_default(), quality(percent)?);
    let loaded = app.models.load(entry).await?;
    let mut data = Vec::with_capacity(tokens.len());
    // One at a time, so that others' pictures get their turn.
    for tokens in tokens {
        let work = move |loaded: &Loaded| loaded.decode(&tokens);
        let encode = move |picture: Picture| format.encode(&picture, quality);
        data.push(DecodedPicture { b64_json: loaded.with(work, encode).await? });
    }
    let answer =
        Decoded { model: entry.id.clone(), data, output_format: format, size: size(entry) };
    Ok(json(StatusCode::OK, &answer))
}

/// A request that was cancelled.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Cancelled {
    id: String,
    /// `true`
    cancelled: bool,
}

/// Cancel a request
///
/// Its pictures that are not finished end with `failed`, and their places are free at once. Only the
/// client that asked may cancel.
#[utoipa::path(
    delete, path = "/v1/pictures/{id}", tag = "AliTok",
    params(("id" = String, Path, description = "The id of the event `queued`")),
    responses(
        (status = 200, body = Cancelled),
        (status = 400, body = ErrorBody, description = "The id is no text"),
        (status = 401, body = ErrorBody, description = "No valid key"),
        (status = 404, body = ErrorBody, description = "Nothing of this id is being drawn"),
    )
)]
pub(crate) async fn cancel(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::param("id", error.body_text()))?;
    if !app.sessions.cancel(&id, &client.id) {
        let message = "nothing of this id waits or is being drawn for you";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    Ok(json(StatusCode::OK, &Cancelled { id, cancelled: true }))
}
