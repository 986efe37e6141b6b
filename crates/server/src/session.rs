//! A request for pictures while it is drawn.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::http::StatusCode;
use pipeline::{Event, PipelineError};
use pixels::Picture;
use tokens::CodebookIndex;
use tokio::sync::watch;

use crate::{
    batcher::{Happened, Order, Refusal},
    error::ApiError,
    keys::Client,
    models::Loaded,
    queue::ClientId,
    request::Plan,
};

/// The requests that are being drawn, over all models.
#[derive(Default)]
pub(crate) struct Sessions {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    sessions: HashMap<String, (ClientId, watch::Sender<Stop>)>,
    /// Pictures that wait or are being drawn, by client.
    pictures: HashMap<ClientId, usize>,
}

/// Why a session ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Cancelled,
    Draining,
}

/// A request's pictures, as they are drawn. Dropping it cancels those that are not finished.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) plan: Arc<Plan>,
    pub(crate) loaded: Arc<Loaded>,
    /// How many pictures come before its last one.
    pub(crate) position: usize,
    order: Order,
    stop: watch::Receiver<Stop>,
    asked: Instant,
    /// Which pictures have ended.
    ended: Vec<bool>,
    /// Pictures that have not ended.
    left: usize,
    _entered: Entered,
}

/// What a client hears of a request.
#[derive(Debug)]
pub(crate) enum News {
    /// A row of the grid is decided, or the prefix (row 0).
    Row { picture: usize, row: usize, tokens: Vec<CodebookIndex>, preview: Option<Preview> },
    /// A picture is ready.
    Finished { picture: usize, tokens: Vec<CodebookIndex>, base64: String, timing: Timing },
    /// A picture will not come.
    Failed { picture: usize, error: ApiError },
}

/// The rows so far.
#[derive(Debug)]
pub(crate) struct Preview {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) base64: String,
}

/// Milliseconds from asking.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub(crate) struct Timing {
    /// Until it was being drawn.
    pub(crate) queued_ms: u64,
    /// Until the first row, or the prefix, was decided.
    pub(crate) first_row_ms: u64,
    /// Until it was decoded.
    pub(crate) total_ms: u64,
}

/// A client's pictures count until this is dropped.
struct Entered {
    sessions: Arc<Sessions>,
    id: String,
    client: ClientId,
    count: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut known = self.sessions.known();
        known.sessions.remove(&self.id);
        if let Some(pictures) = known.pictures.get_mut(&self.client) {
            *pictures -= self.count;
            if *pictures == 0 {
                known.pictures.remove(&self.client);
            }
        }
    }
}

/// 128 random bits in hexadecimal, after a word that says of what.
pub(crate) fn new_id(of: &str) -> Result<String, ApiError> {
    let [high, low] = [getrandom::u64(), getrandom::u64()];
    let (high, low) = (high.map_err(ApiError::internal)?, low.map_err(ApiError::internal)?);
    Ok(format!("{of}_{high:016x}{low:016x}"))
}

impl Sessions {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known().sessions.len()
    }

    /// Cancels a client's request. Returns whether there was one.
    pub(crate) fn cancel(&self, id: &str, client: &ClientId) -> bool {
        let known = self.known();
        match known.sessions.get(id) {
            // Another client's requests are not to be told from those that do not exist.
            Some((owner, stop)) if owner == client => stop.send(Stop::Cancelled).is_ok(),
            _ => false,
        }
    }

    /// Ends all of them.
    pub(crate) fn end_all(&self) {
        for (_, stop) in self.known().sessions.values() {
            // One without a receiver has ended just now.
            let _ = stop.send(Stop::Draining);
        }
    }

    /// Orders the pictures of a plan.
    pub(crate) fn begin(
        self: &Arc<Self>,
        loaded: Arc<Loaded>,
        plan: Plan,
        client: &Client,
    ) -> Result<Session, ApiError> {
        let id = new_id("pic")?;
        let (sender, stop) = watch::channel(Stop::No);
        let count = plan.count;
        {
            let mut known = self.known();
            let pictures = known.pictures.entry(Arc::clone(&client.id)).or_default();
            if let Some(limit) = client.limit.filter(|&limit| *pictures + count > limit) {
                let message = format!(
                    "{pictures} pictures wait or are being drawn for you already; at most {limit} may \
                     at a time"
                );
                if *pictures == 0 {
                    known.pictures.remove(&client.id);
                }
                return Err(ApiError::busy("client_limit", message, 1));
            }
            *pictures += count;
            known.sessions.insert(id.clone(), (Arc::clone(&client.id), sender));
        }
        let entered = Entered {
            sessions: Arc::clone(self),
            id: id.clone(),
            client: Arc::clone(&client.id),
            count,
        };
        let batcher = &loaded.batcher;
        let order = batcher
            .order(&client.id, plan.requests(), plan.sampling, plan.stream)
            .map_err(|refusal| match refusal {
                Refusal::Full { limit, seconds } => {
                    let message =
                        format!("{limit} pictures may wait, and as many do; try again later");
                    ApiError::busy("queue_full", message, seconds)
                }
                Refusal::TooMany { limit } => {
                    let message = format!("`n` is {count}; this server takes {limit} at a time");
                    ApiError::param("n", message)
                }
                Refusal::Stopped => ApiError::unavailable(
                    "drawing_stopped",
                    "drawing has stopped; it starts again with the next request",
                    1,
                ),
            })?;
        Ok(Session {
            id,
            position: order.position,
            order,
            stop,
            asked: Instant::now(),
            ended: vec![false; count],
            left: count,
            loaded,
            plan: Arc::new(plan),
            _entered: entered,
        })
    }
}

impl Session {
    /// Waits for what happens next. `None` after every picture has ended.
    pub(crate) async fn next(&mut self) -> Option<News> {
        loop {
            if self.left == 0 {
                return None;
            }
            let deadline = tokio::time::Instant::from_std(self.asked + self.plan.deadline);
            let happened = tokio::select! {
                biased;
                draining = draining(&mut self.stop) => {
                    return self.end_next(if draining { shutting_down() } else { cancelled() });
                }
                () = tokio::time::sleep_until(deadline) => {
                    return self.end_next(too_late(self.plan.deadline.as_secs_f64()));
                }
                happened = self.order.next() => happened,
            };
            let Some(happened) = happened else {
                let message = "drawing has stopped; please report what was asked for";
                return self.end_next(ApiError::internal(message));
            };
            let picture = happened.index;
            match self.take_in(happened).await {
                Ok(Some(news)) => return Some(news),
                Ok(None) => {}
                Err(error) => return self.end_one(picture, error),
            }
        }
    }

    async fn take_in(&mut self, happened: Happened) -> Result<Option<News>, ApiError> {
        let Happened { index: picture, begun, first_row, event } = happened;
        match event {
            Event::Row { tokens, .. } => {
                let layout = self.loaded.entry.layout();
                let row = (1..=layout.rows()).find(|&row| layout.len_of_rows(row) == tokens.len());
                let row = row.unwrap_or(0);
                let preview = if self.plan.previews.contains(&row) {
                    Some(self.preview(tokens.clone()).await?)
                } else {
                    None
                };
                Ok(Some(News::Row { picture, row, tokens, preview }))
            }
            Event::Finished { tokens, .. } => {
                let (format, quality) = (self.plan.format, self.plan.quality);
                let whole = tokens.clone();
                let decoded = self.loaded.with(
                    move |loaded| loaded.decode(&whole),
                    move |picture| format.encode(&picture, quality),
                );
                let base64 = decoded.await?;
                self.ended[picture] = true;
                self.left -= 1;
                let ms = |at: Instant| at.saturating_duration_since(self.asked).as_millis() as u64;
                let timing = Timing {
                    queued_ms: ms(begun),
                    first_row_ms: first_row.map_or(0, ms),
                    total_ms: self.asked.elapsed().as_millis() as u64,
                };
                Ok(Some(News::Finished { picture, tokens, base64, timing }))
            }
            Event::Failed { error, .. } => Err(ApiError::internal(error)),
            Event::Preview { .. } => Ok(None),
        }
    }

    /// The rows so far.
    async fn preview(&self, tokens: Vec<CodebookIndex>) -> Result<Preview, ApiError> {
        let (format, quality, whole) =
            (self.plan.format, self.plan.quality, self.plan.whole_previews);
        let work = move |loaded: &Loaded| {
            let picture = loaded.decode_rows(&tokens)?;
            if whole { fill(&picture, loaded) } else { Ok(picture) }
        };
        let encode = move |picture: Picture| {
            let base64 = format.encode(&picture, quality)?;
            Ok(Preview { width: picture.width(), height: picture.height(), base64 })
        };
        self.loaded.with(work, encode).await
    }

    fn end_one(&mut self, picture: usize, error: ApiError) -> Option<News> {
        if !std::mem::replace(&mut self.ended[picture], true) {
            self.left -= 1;
        }
        Some(News::Failed { picture, error })
    }

    /// Ends the first picture that has not ended.
    fn end_next(&mut self, error: ApiError) -> Option<News> {
        let picture = self.ended.iter().position(|ended| !ended)?;
        self.end_one(picture, error)
    }
}

/// Waits until a session is to end early; whether that is because the server does.
async fn draining(stop: &mut watch::Receiver<Stop>) -> bool {
    let stopped = stop.wait_for(|&stop| stop != Stop::No).await;
    stopped.is_ok_and(|stop| *stop == Stop::Draining)
}

/// The first rows on a grey picture of the model's size.
fn fill(rows: &Picture, loaded: &Loaded) -> Result<Picture, ApiError> {
    let image = loaded.entry.model.config.tokenizer.image;
    let mut rgb = rows.rgb().to_vec();
    rgb.resize(3 * image.width * image.height, 128);
    Ok(Picture::new(image.width, image.height, rgb).map_err(PipelineError::from)?)
}

fn cancelled() -> ApiError {
    // 499 is what reverse proxies log for it; the client that cancelled gets it where it still listens.
    let status = StatusCode::from_u16(499).unwrap_or(StatusCode::GONE);
    ApiError::new(status, "cancelled", "the request was cancelled")
}

pub(crate) fn shutting_down() -> ApiError {
    ApiError::unavailable("shutting_down", "this server is shutting down; ask another, or later", 5)
}

fn too_late(seconds: f64) -> ApiError {
    let message = format!("the pictures were not finished within {seconds} s");
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline", message)
}
