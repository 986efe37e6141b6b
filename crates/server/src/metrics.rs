//! What the server tells Prometheus of itself.

use std::time::Duration;

use measures::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

const METADATA: Metadata<'_> = Metadata::new("alitok", Level::INFO, None);

/// The server's own recorder; nothing is registered globally, so that two servers in one process count
/// apart.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// What is counted of a model.
#[derive(Clone)]
pub(crate) struct ModelMetrics {
    pub(crate) queue: Gauge,
    pub(crate) drawing: Gauge,
    pub(crate) steps: Counter,
    pub(crate) tokens: Counter,
    pub(crate) finished: Counter,
    pub(crate) failed: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) queue_seconds: Histogram,
    pub(crate) first_row_seconds: Histogram,
    pub(crate) picture_seconds: Histogram,
    pub(crate) decode_seconds: Histogram,
}

fn describe(recorder: &PrometheusRecorder) {
    let gauge = |name: &'static str, text: &'static str| {
        recorder.describe_gauge(name.into(), None, SharedString::from(text));
    };
    gauge("alitok_queue_pictures", "Pictures that wait.");
    gauge("alitok_drawing_pictures", "Pictures that are being drawn side by side.");
    gauge("alitok_models_loaded", "Models in memory.");
    gauge("alitok_models_bytes", "Estimated bytes of the models in memory.");
    gauge("alitok_resident_bytes", "Memory of the process.");
    gauge("alitok_connections", "Open connections.");
    let counter = |name: &'static str, text: &'static str| {
        recorder.describe_counter(name.into(), None, SharedString::from(text));
    };
    counter("alitok_steps_total", "Steps of the generator; tokens by steps is the mean batch.");
    counter("alitok_tokens_total", "Tokens that were drawn.");
    counter("alitok_pictures_total", "Pictures that ended, by outcome.");
    counter("alitok_refused_total", "Requests that were refused, by code.");
    counter("alitok_http_requests_total", "Requests by route and status.");
    let seconds = |name: &'static str, text: &'static str| {
        recorder.describe_histogram(name.into(), Some(Unit::Seconds), SharedString::from(text));
    };
    seconds("alitok_queue_seconds", "From asking to drawing.");
    seconds("alitok_first_row_seconds", "From asking to the first row.");
    seconds("alitok_picture_seconds", "From asking to the last token.");
    seconds("alitok_decode_seconds", "Decoding tokens to a picture, waiting included.");
    seconds("alitok_http_request_seconds", "From a request to the head of its answer.");
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("seconds".to_owned()), &SECONDS)?
            .build_recorder();
        describe(&recorder);
        Ok(Self { handle: recorder.handle(), recorder })
    }

    pub(crate) fn gauge(&self, name: &'static str) -> Gauge {
        self.recorder.register_gauge(&Key::from_name(name), &METADATA)
    }

    fn key(name: &'static str, labels: Vec<Label>) -> Key {
        Key::from_parts(name, labels)
    }

    /// A request was refused.
    pub(crate) fn refused(&self, code: &'static str) {
        let key = Self::key("alitok_refused_total", vec![Label::new("code", code)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// A request was answered.
    pub(crate) fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let route = Label::new("route", route.to_owned());
        let labels = vec![
            Label::new("method", method.to_owned()),
            route.clone(),
            Label::new("status", status.to_string()),
        ];
        let key = Self::key("alitok_http_requests_total", labels);
        self.recorder.register_counter(&key, &METADATA).increment(1);
        let key = Self::key("alitok_http_request_seconds", vec![route]);
        self.recorder.register_histogram(&key, &METADATA).record(took);
    }

    /// What is counted of a model.
    pub(crate) fn model(&self, id: &str) -> ModelMetrics {
        let label = || Label::new("model", id.to_owned());
        let gauge = |name| self.recorder.register_gauge(&Self::key(name, vec![label()]), &METADATA);
        let counter =
            |name| self.recorder.register_counter(&Self::key(name, vec![label()]), &METADATA);
        let outcome = |outcome: &'static str| {
            let labels = vec![label(), Label::new("outcome", outcome)];
            let key = Self::key("alitok_pictures_total", labels);
            self.recorder.register_counter(&key, &METADATA)
        };
        let histogram =
            |name| self.recorder.register_histogram(&Self::key(name, vec![label()]), &METADATA);
        ModelMetrics {
            queue: gauge("alitok_queue_pictures"),
            drawing: gauge("alitok_drawing_pictures"),
            steps: counter("alitok_steps_total"),
            tokens: counter("alitok_tokens_total"),
            finished: outcome("finished"),
            failed: outcome("failed"),
            cancelled: outcome("cancelled"),
            queue_seconds: histogram("alitok_queue_seconds"),
            first_row_seconds: histogram("alitok_first_row_seconds"),
            picture_seconds: histogram("alitok_picture_seconds"),
            decode_seconds: histogram("alitok_decode_seconds"),
        }
    }

    /// Takes in what histograms have gathered, so that they do not grow while nobody asks.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The page that Prometheus reads.
    pub(crate) fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.gauge("alitok_resident_bytes").set(bytes as f64);
        }
        self.handle.render()
    }
}

/// Memory of this process, where the system says it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}
