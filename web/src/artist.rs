//! The loaded model, and requests being drawn.

use std::cell::OnceCell;

use generator::Request;
use model::{Model, ModelBytes};
use pipeline::{
    Compute, Decode, Device, Draw, Drawing, Encode, Event, GpuDevice, SamplingChanges,
    class_requests, sampling,
};
use pixels::{Picture, crop::Crop};
use serde::Serialize;
use tokenizer::DecoderKind;
use tokens::{CodebookIndex, TokenLayout};
use wasm_bindgen::prelude::*;

use crate::request::{ModelData, News, PictureRequest, PreviewData, Queued, Refusal, png};

/// Most pictures of a request, as of the server.
const MAX_PICTURES: usize = 10;

/// Most pictures that a GPU draws at a time: rows of all their positions go through it at once, so that it
/// chooses tokens by itself and nobody has to wait for logits.
const GPU_PICTURES: usize = 4;

/// What is thrown: the JSON of the server's `error`.
fn thrown(refusal: &Refusal) -> JsValue {
    JsValue::from_str(&json(refusal))
}

fn refused(error: impl ToString) -> JsValue {
    thrown(&Refusal::new(error))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}

/// A model that draws.
///
/// Its parts live until the page is closed: a worker has one model, and a drawing borrows it.
#[wasm_bindgen]
pub struct Artist {
    model: Model,
    cpu: Compute,
    /// What draws instead, if it is there.
    gpu: Option<GpuDevice>,
    /// How many pictures are drawn at a time.
    room: usize,
    drawer: &'static dyn Draw,
    decoder: &'static dyn Decode,
    /// Makes pictures of the first rows.
    previewer: Option<&'static dyn Decode>,
    /// Opened when the first picture is to be completed.
    encoder: OnceCell<Box<dyn Encode>>,
}

#[wasm_bindgen]
impl Artist {
    /// Opens a model whose files are these; with `gpu`, its generator on the browser's GPU.
    ///
    /// # Errors
    /// If they are not those of a model of classes that decodes what it draws, or there is no such GPU.
    pub async fn open(
        name: String,
        config: String,
        classes: String,
        tokenizer: Vec<u8>,
        generator: Vec<u8>,
        gpu: bool,
    ) -> Result<Artist, JsValue> {
        let model = Model::from_bytes(ModelBytes {
            name,
            config,
            classes: Some(classes),
            tokenizer: tokenizer.into(),
            generator: Some(generator.into()),
            text: None,
        })
        .map_err(refused)?;
        let cpu = Compute::new(Device::Cpu, None, Some(1)).map_err(refused)?;
        let gpu =
            if gpu { Some(GpuDevice::open_later(None).await.map_err(refused)?) } else { None };
        let (drawer, room) = match &gpu {
            None => (cpu.drawer(&model), MAX_PICTURES),
            Some(gpu) => {
                let compute = Compute::with_gpu(gpu.clone(), None).map_err(refused)?;
                (compute.drawer(&model), GPU_PICTURES)
            }
        };
        let drawer = Box::leak(drawer.map_err(refused)?);
        let decoder = Box::leak(cpu.decoder(&model, None).map_err(refused)?);
        let previewer: Option<&'static dyn Decode> = if decoder.decodes_rows() {
            Some(decoder)
        } else if model.config.tokenizer.causal_decoder.is_some() {
            let causal = cpu.decoder(&model, Some(DecoderKind::Causal));
            Some(Box::leak(causal.map_err(refused)?))
        } else {
            None
        };
        Ok(Self { model, cpu, gpu, room, drawer, decoder, previewer, encoder: OnceCell::new() })
    }

    /// The name of the GPU that draws, if one does.
    pub fn gpu(&self) -> Option<String> {
        self.gpu.as_ref().map(|gpu| gpu.info().name.clone())
    }

    /// Begins to draw what the server's `POST /v1/pictures` would be asked for, below the first `rows` of a
    /// picture (PNG, JPEG, GIF or WebP) if there is one.
    ///
    /// # Errors
    /// If something else is asked for than the model draws.
    pub fn begin(&self, request: &str, picture: Option<Vec<u8>>) -> Result<Session, JsValue> {
        self.session(request, picture).map_err(|refusal| thrown(&refusal))
    }
}

impl Artist {
    fn layout(&self) -> TokenLayout {
        self.model.config.tokenizer.layout()
    }

    fn session(&self, request: &str, picture: Option<Vec<u8>>) -> Result<Session, Refusal> {
        let request: PictureRequest = serde_json::from_str(request).map_err(Refusal::new)?;
        let count = request.n.unwrap_or(1);
        if !(1..=MAX_PICTURES).contains(&count) {
            let message = format!("`n` is {count}; ask for 1 to {MAX_PICTURES} pictures at a time");
            return Err(Refusal::of("n", message));
        }
        let Some(class_name) = self.model.classes.get(request.class) else {
            let message = format!("there is no class {}", request.class);
            return Err(Refusal::of("class", message));
        };
        let changes = SamplingChanges {
            guidance: request.guidance,
            guidance_power: request.guidance_power,
            temperature: request.temperature,
            top_k: request.top_k,
            top_p: request.top_p,
        };
        let sampling = sampling(&self.model, &changes).map_err(Refusal::new)?;
        let layout = self.layout();
        let forced = self.forced(&request, picture)?;
        let begun = (0..=layout.rows()).rev().find(|&row| layout.len_of_rows(row) <= forced.len());
        let mut drawing = Drawing::new(self.drawer, count.min(self.room)).map_err(Refusal::new)?;
        let index = request.index;
        for request in class_requests(&[request.class], count, request.seed) {
            let request =
                Request { index: request.index + index, forced: forced.clone(), ..request };
            drawing.submit(&request, &sampling).map_err(Refusal::new)?;
        }
        let facts = Queued {
            model: self.model.path().display().to_string(),
            class: request.class,
            class_name: class_name.clone(),
            seed: request.seed,
            index,
            n: count,
            position: count - 1,
            rows: layout.rows(),
            sampling: sampling.into(),
        };
        Ok(Session {
            drawing,
            decoder: self.decoder,
            previewer: self.previewer.filter(|_| request.previews > 0),
            every: request.previews,
            layout,
            begun: begun.unwrap_or(0),
            facts,
            ended: vec![false; count],
        })
    }

    /// The tokens that all pictures begin with.
    fn forced(
        &self,
        request: &PictureRequest,
        picture: Option<Vec<u8>>,
    ) -> Result<Vec<CodebookIndex>, Refusal> {
        let layout = self.layout();
        let mut tokens = request.tokens.clone();
        if let Some(bytes) = picture {
            let size = self.model.config.tokenizer.image;
            let wrong = |error| Refusal::of("image", error);
            let picture = Picture::decode(&bytes, "image").map_err(wrong)?;
            let picture =
                Crop::Center.fit(picture, size.width, size.height, "image").map_err(wrong)?;
            if self.encoder.get().is_none() {
                let encoder = self.cpu.encoder(&self.model).map_err(Refusal::new)?;
                // Nobody else has filled it: there is one thread.
                let _ = self.encoder.set(encoder);
            }
            let encoder = self.encoder.get().expect("it was opened");
            tokens = encoder.encode(&picture).map_err(Refusal::new)?;
        }
        if let Some(rows) = request.rows {
            if rows > layout.rows() {
                let message = format!("`rows` is {rows}; keep at most {}", layout.rows());
                return Err(Refusal::of("rows", message));
            }
            tokens.truncate(layout.len_of_rows(rows));
        }
        Ok(tokens)
    }
}

/// What `GET /v1/models` tells of a model, before its weights are there.
///
/// # Errors
/// If these are not configuration and classes of a model of classes.
#[wasm_bindgen(js_name = describeModel)]
pub fn describe_model(name: String, config: String, classes: String) -> Result<String, JsValue> {
    let model = Model::from_bytes(ModelBytes {
        name,
        config,
        classes: Some(classes),
        tokenizer: Vec::new().into(),
        generator: Some(Vec::new().into()),
        text: None,
    })
    .map_err(refused)?;
    let tokenizer = &model.config.tokenizer;
    let layout = tokenizer.layout();
    Ok(json(&ModelData {
        id: &model.path().display().to_string(),
        classes: &model.classes,
        reads_prompts: false,
        width: tokenizer.image.width,
        height: tokenizer.image.height,
        tokens: layout.len(),
        prefix: layout.prefix(),
        rows: layout.rows(),
        columns: layout.columns(),
        codes: tokenizer.codes,
        defaults: model.config.sampling.into(),
        previews: tokenizer.causal_decoder.is_some(),
        loaded: false,
    }))
}

/// Pictures of one request, being drawn.
#[wasm_bindgen]
pub struct Session {
    drawing: Drawing<'static>,
    decoder: &'static dyn Decode,
    previewer: Option<&'static dyn Decode>,
    /// A preview is made of every so many rows.
    every: usize,
    layout: TokenLayout,
    /// Rows that were given.
    begun: usize,
    facts: Queued,
    ended: Vec<bool>,
}

#[wasm_bindgen]
impl Session {
    /// What the request became, as JSON.
    pub fn facts(&self) -> String {
        json(&self.facts)
    }

    /// Whether nothing follows any more.
    #[wasm_bindgen(js_name = isOver)]
    pub fn is_over(&self) -> bool {
        self.ended.iter().all(|&ended| ended)
    }

    /// Draws at most one token of each picture; what happened as JSON, if anything did.
    pub fn step(&mut self) -> Option<String> {
        let event = self.drawing.poll()?;
        self.take_in(event).map(|news| json(&news))
    }

    /// Cancels what has not ended: news of that, as JSON.
    pub fn cancel(&mut self) -> String {
        let mut news = Vec::new();
        for picture in 0..self.ended.len() {
            if !self.ended[picture] {
                self.drawing.cancel(picture);
                news.push(self.failed(picture, Refusal::cancelled()));
            }
        }
        json(&news)
    }
}

impl Session {
    fn take_in(&mut self, event: Event) -> Option<News> {
        let index = self.facts.index + event.picture() as u64;
        match event {
            Event::Row { tokens, .. } => {
                let rows = self.layout.rows();
                let row = (self.begun + 1..=rows)
                    .find(|&row| self.layout.len_of_rows(row) == tokens.len());
                let Some(row) = row else { return Some(News::Prefix { index }) };
                let wanted = row < rows && row.is_multiple_of(self.every.max(1));
                let preview = self.previewer.filter(|_| wanted).and_then(|previewer| {
                    // A generator's tokens are codes of its tokenizer.
                    let picture = previewer.decode(&tokens).ok()?;
                    let (width, height) = (picture.width(), picture.height());
                    Some(PreviewData { b64_json: png(&picture), width, height })
                });
                Some(News::Row { index, row, rows, preview })
            }
            Event::Finished { picture, tokens } => Some(match self.decoder.decode(&tokens) {
                Ok(drawn) => {
                    self.ended[picture] = true;
                    News::Finished { index, tokens, b64_json: png(&drawn) }
                }
                Err(error) => self.failed(picture, Refusal::new(error)),
            }),
            Event::Failed { picture, error } => Some(self.failed(picture, Refusal::new(error))),
            Event::Preview { .. } => None,
        }
    }

    fn failed(&mut self, picture: usize, error: Refusal) -> News {
        self.ended[picture] = true;
        News::Failed { index: self.facts.index + picture as u64, error }
    }
}
