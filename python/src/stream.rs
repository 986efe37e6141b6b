//! Pictures that are drawn row by row, as an iterator.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
};

use generator::{Request, SamplingConfig};
use pipeline::{Decode, Draw, Drawing, Event};
use pyo3::{exceptions::PyStopIteration, prelude::*};

use crate::{
    array::Array,
    failure::{Failure, Kind},
    model::PATIENCE,
    pictures,
    process::OfProcess,
};

/// Events that may wait to be taken; drawing stops at as many.
const WAITING: usize = 256;

/// What the thread that draws tells.
type Events = Receiver<Result<Event, Failure>>;

/// An iterator over what happens while pictures are drawn, on a thread of its own.
#[pyclass(frozen, module = "alitok._alitok")]
pub(crate) struct Stream {
    decoder: Arc<dyn Decode>,
    /// Taken for moments, and only without Python's lock.
    events: OfProcess<Mutex<Option<Events>>>,
    control: Arc<Control>,
}

/// What is asked of the thread that draws.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    cancelled: Mutex<Vec<usize>>,
}

impl Stream {
    /// Begins to draw.
    pub(crate) fn start(
        drawer: Arc<dyn Draw>,
        decoder: Arc<dyn Decode>,
        previewer: Option<(Arc<dyn Decode>, usize)>,
        requests: Vec<Request>,
        sampling: SamplingConfig,
        batch: usize,
    ) -> Result<Self, Failure> {
        let control = Arc::new(Control::default());
        let (sender, receiver) = sync_channel(WAITING);
        let asked = Arc::clone(&control);
        let draw = move || {
            let drawing = Drawing::of(&*drawer, &requests, &sampling, batch);
            let drawing = drawing.and_then(|drawing| match &previewer {
                None => Ok(drawing),
                Some((decoder, every)) => drawing.with_previews(&**decoder, *every),
            });
            let mut drawing = match drawing {
                Ok(drawing) => drawing,
                Err(error) => return drop(sender.send(Err(error.into()))),
            };
            while !drawing.is_idle() && !asked.stop.load(Ordering::Relaxed) {
                let cancelled = std::mem::take(
                    &mut *asked.cancelled.lock().unwrap_or_else(PoisonError::into_inner),
                );
                for picture in cancelled {
                    drawing.cancel(picture);
                }
                if let Some(event) = drawing.poll()
                    && sender.send(Ok(event)).is_err()
                {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("alitok stream".to_owned()).spawn(draw);
        thread.map_err(|error| Failure::new(Kind::Unavailable, error))?;
        Ok(Self { decoder, events: OfProcess::new(Mutex::new(Some(receiver))), control })
    }
}

/// What Python is told: the kind of event, the picture's number, its tokens so far, a picture.
type Told = (&'static str, usize, Option<Array>, Option<Array>);

#[pymethods]
impl Stream {
    /// The next event.
    fn next(&self, py: Python<'_>) -> Result<Told, Failure> {
        if !self.events.is_of_this() {
            let text =
                "a stream ends where its process forks; begin it in the process that reads it";
            return Err(Failure::new(Kind::Unavailable, text));
        }
        loop {
            let event = py.detach(|| {
                let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                match &*events {
                    None => Err(RecvTimeoutError::Disconnected),
                    Some(events) => events.recv_timeout(PATIENCE),
                }
            });
            py.check_signals()?;
            let tokens = |tokens: &[u16]| {
                let values: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
                Array::i64([values.len()], values)
            };
            return Ok(match event {
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PyStopIteration::new_err(()).into());
                }
                Ok(event) => match event? {
                    Event::Row { picture, tokens: decided } => {
                        ("row", picture, Some(tokens(&decided)), None)
                    }
                    Event::Preview { picture, image } => {
                        ("preview", picture, None, Some(pictures::array(image)))
                    }
                    Event::Finished { picture, tokens: all } => {
                        let image = py.detach(|| self.decoder.decode(&all))?;
                        ("picture", picture, Some(tokens(&all)), Some(pictures::array(image)))
                    }
                    Event::Failed { error, .. } => return Err(error.into()),
                },
            });
        }
    }

    /// Cancels a picture.
    fn cancel(&self, picture: usize) {
        self.control.cancelled.lock().unwrap_or_else(PoisonError::into_inner).push(picture);
    }

    /// Stops drawing; no events follow.
    fn close(&self, py: Python<'_>) {
        self.control.stop.store(true, Ordering::Relaxed);
        if self.events.is_of_this() {
            py.detach(|| *self.events.lock().unwrap_or_else(PoisonError::into_inner) = None);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The thread ends at its next token, or where it finds that nobody takes its events.
        self.control.stop.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Stream>()
}
