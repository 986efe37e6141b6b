//! Load on a server in this process, over real connections. Figures that compare are medians of ratios of
//! pairs, measured in turn in one run; the load generator's own processor time is stated.
//!
//! ```text
//! cargo bench -p alitok-server --bench load -- throughput first-row idle rude soak=10000 latency
//!     [model=FOLDER] [precision=int8] [pairs=7] [each=8] [graph=memory.svg]
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a measurement that cannot go on has failed; a program

#[path = "../tests/all/client.rs"]
#[allow(dead_code)] // the tests use the rest
mod client;

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use client::{Exchange, Running, connect};
use files::Home;
use generator::SamplingConfig;
use model::Model;
use pipeline::{
    Compute, Decode, Device, Draw, Drawing, Event, Precision, SamplingChanges, class_requests,
    sampling,
};
use server::Settings;

/// Clients that ask at the same time.
const CLIENTS: usize = 16;

struct Bench {
    server: Running,
    drawer: Box<dyn Draw>,
    decoder: Box<dyn Decode>,
    sampling: SamplingConfig,
    pairs: usize,
    /// Pictures that each client asks for in a measurement of throughput.
    each: usize,
    graph: Option<String>,
}

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|it| it.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn resident_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.unwrap_or(0.0) / 1024.0
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// Medians and the ratio of `b` to `a`, measured in turn.
fn paired(pairs: usize, mut a: impl FnMut() -> f64, mut b: impl FnMut() -> f64) -> [f64; 3] {
    let (mut of_a, mut of_b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Who comes first changes, so that a drift favours neither.
        let (first, second) = if pair % 2 == 0 {
            let first = a();
            (first, b())
        } else {
            let second = b();
            (a(), second)
        };
        of_a.push(first);
        of_b.push(second);
        ratios.push(second / first);
    }
    [median(&mut of_a), median(&mut of_b), median(&mut ratios)]
}

fn ask(bench: &Bench, seed: usize) -> u16 {
    let body = format!("{{\"class\": {}, \"seed\": {seed}}}", seed % 9);
    bench.server.post("/v1/images/generations", &body).status
}

impl Bench {
    /// Pictures a second as `alitok generate --batch 16` draws them: decoding beside drawing.
    fn generate(&self, count: usize) -> f64 {
        let requests = class_requests(&(0..9).collect::<Vec<_>>(), count.div_ceil(9), 1);
        let begun = Instant::now();
        let drawing =
            Drawing::of(&*self.drawer, &requests[..count], &self.sampling, CLIENTS).unwrap();
        let (send, receive) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                for event in drawing {
                    if let Event::Finished { tokens, .. } = event {
                        send.send(tokens).unwrap();
                    }
                }
            });
            for tokens in receive {
                self.decoder.decode(&tokens).unwrap().encode_png();
            }
        });
        count as f64 / begun.elapsed().as_secs_f64()
    }

    /// Pictures a second of so many clients that ask one after the other, and their processor time.
    fn serve(&self, count: usize) -> (f64, Duration) {
        let next = AtomicUsize::new(0);
        let begun = Instant::now();
        let used = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        while let seed = next.fetch_add(1, Ordering::Relaxed)
                            && seed < count
                        {
                            assert_eq!(ask(self, seed), 200);
                        }
                        processor_time()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        (count as f64 / begun.elapsed().as_secs_f64(), used)
    }

    fn throughput(&self) -> f64 {
        let count = self.each * CLIENTS;
        let used = Mutex::new(Duration::ZERO);
        let begun = Instant::now();
        let [engine, served, ratio] = paired(
            self.pairs,
            || self.generate(count),
            || {
                let (rate, time) = self.serve(count);
                *used.lock().unwrap() += time;
                rate
            },
        );
        let share = used.into_inner().unwrap().as_secs_f64() / begun.elapsed().as_secs_f64();
        println!(
            "throughput: generate --batch 16 {engine:.2} pictures/s, {CLIENTS} clients {served:.2}, \
             ratio {ratio:.3}; the clients took {:.1} % of a processor; load {}",
            100.0 * share,
            load_average()
        );
        served
    }

    /// Until the first row of a picture is known, and until its prefix is, which nobody sees. A question
    /// that the server answers at once tells what connecting costs.
    fn first_row(&self) {
        for (what, events) in [("prefix", 1), ("first row", 2)] {
            let [engine, served, ratio] = paired(
                5 * self.pairs,
                || {
                    let request = class_requests(&[2], 1, 1);
                    let begun = Instant::now();
                    let drawing = Drawing::of(&*self.drawer, &request, &self.sampling, 16).unwrap();
                    let is_row = |event: &Event| matches!(event, Event::Row { .. });
                    let mut rows = drawing.filter(is_row);
                    rows.nth(events - 1).unwrap();
                    let took = begun.elapsed().as_secs_f64();
                    rows.for_each(drop);
                    took
                },
                || {
                    let begun = Instant::now();
                    let body = r#"{"class": 2, "seed": 1}"#;
                    let mut stream = self.server.stream("/v1/pictures", &[], body);
                    // The first event says that it is queued.
                    (0..=events).for_each(|_| drop(stream.event().unwrap()));
                    let took = begun.elapsed().as_secs_f64();
                    stream.events();
                    took
                },
            );
            println!(
                "{what}: engine {:.2} ms, one client {:.2} ms, ratio {ratio:.3}; load {}",
                1e3 * engine,
                1e3 * served,
                load_average()
            );
        }
        let mut answers: Vec<f64> = (0..5 * self.pairs)
            .map(|_| {
                let begun = Instant::now();
                assert_eq!(self.server.get("/health").status, 200);
                begun.elapsed().as_secs_f64()
            })
            .collect();
        println!("a connection and an answer from /health: {:.2} ms", 1e3 * median(&mut answers));
    }

    fn picture(&self) -> f64 {
        let begun = Instant::now();
        for seed in 0..4 {
            assert_eq!(ask(self, seed), 200);
        }
        begun.elapsed().as_secs_f64() / 4.0
    }

    fn idle(&self) {
        let [alone, beside, ratio] = paired(
            self.pairs,
            || self.picture(),
            || {
                let _idle: Vec<_> = (0..500).map(|_| connect(self.server.address)).collect();
                thread::sleep(Duration::from_millis(200));
                self.picture()
            },
        );
        println!(
            "idle: a picture {:.1} ms alone, {:.1} ms beside 500 idle connections, ratio {ratio:.3}; \
             load {}",
            1e3 * alone,
            1e3 * beside,
            load_average()
        );
    }

    /// A thousand heads that never end, and fifty streams that nobody reads.
    fn rude(&self) {
        let before = resident_megabytes();
        let half: Vec<_> = (0..1000)
            .map(|_| {
                let mut stream = connect(self.server.address);
                stream.write_all(b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nConte").unwrap();
                stream
            })
            .collect();
        let body = r#"{"class": 1, "n": 4, "previews": 1}"#;
        let unread: Vec<Exchange> =
            (0..50).map(|_| self.server.stream("/v1/pictures", &[], body)).collect();
        let begun = Instant::now();
        assert_eq!(ask(self, 1), 200);
        println!(
            "rude: beside 1000 half-open connections and 50 streams of 4 pictures that nobody reads, a \
             picture took {:.2} s, memory went from {before:.0} to {:.0} MB; load {}",
            begun.elapsed().as_secs_f64(),
            resident_megabytes(),
            load_average()
        );
        drop((half, unread));
    }

    /// Many requests, a tenth of them cancelled midway, a tenth malformed.
    fn soak(&self, count: usize) {
        let next = AtomicUsize::new(0);
        let outcomes = [const { AtomicUsize::new(0) }; 4];
        let memory = Arc::new(Mutex::new(Vec::new()));
        let begun = Instant::now();
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while let number = next.fetch_add(1, Ordering::Relaxed)
                        && number < count
                    {
                        let outcome = match number % 10 {
                            3 => {
                                let body = format!("{{\"class\": 1, \"seed\": {number}}}");
                                let mut stream = self.server.stream("/v1/pictures", &[], &body);
                                (0..3).for_each(|_| drop(stream.event()));
                                1
                            }
                            7 => {
                                let body = r#"{"class": 1, "n": "#;
                                let status = self.server.post("/v1/pictures", body).status;
                                if status == 400 { 2 } else { 3 }
                            }
                            _ if ask(self, number) == 200 => 0,
                            _ => 3,
                        };
                        outcomes[outcome].fetch_add(1, Ordering::Relaxed);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < count {
                    let point = (begun.elapsed().as_secs_f64(), resident_megabytes());
                    memory.lock().unwrap().push(point);
                    thread::sleep(Duration::from_millis(500));
                }
            });
        });
        let memory = memory.lock().unwrap();
        let at = |share: f64| memory[((memory.len() - 1) as f64 * share) as usize].1;
        let [finished, cancelled, refused, lost] = outcomes.map(AtomicUsize::into_inner);
        println!(
            "soak: {count} requests in {:.0} s: {finished} finished, {cancelled} cancelled, {refused} \
             refused as malformed, {lost} lost; memory {:.0} MB after a tenth, {:.0} MB at half, {:.0} MB \
             at the end; load {}",
            begun.elapsed().as_secs_f64(),
            at(0.1),
            at(0.5),
            at(1.0),
            load_average()
        );
        if let Some(path) = &self.graph {
            std::fs::write(path, graph(&memory, count)).unwrap();
        }
        assert_eq!(lost, 0);
    }

    /// Requests that come at random, on average so often as a share of what can be served.
    fn latency(&self, capacity: f64) {
        for share in [0.5, 0.8, 1.2] {
            let rate = share * capacity;
            let count = (20.0 * rate).ceil() as usize;
            let times = Mutex::new(Vec::new());
            let refused = AtomicUsize::new(0);
            thread::scope(|scope| {
                let begun = Instant::now();
                let mut due = 0.0;
                for number in 0..count {
                    // Exponential distances, from a fixed sequence.
                    let uniform = ((number as f64 + 0.5) * 0.618_033_988_75).fract();
                    due -= (1.0 - uniform).ln() / rate;
                    let (times, refused) = (&times, &refused);
                    scope.spawn(move || {
                        let due = Duration::from_secs_f64(due);
                        thread::sleep(due.saturating_sub(begun.elapsed()));
                        match ask(self, number) {
                            200 => {
                                let took = (begun.elapsed() - due).as_secs_f64();
                                times.lock().unwrap().push(took);
                            }
                            _ => {
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            let mut times = times.into_inner().unwrap();
            let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(&mut times, percent));
            println!(
                "latency at {share} × of capacity ({rate:.1} requests/s, {count} in all): p50 {p50:.2} s, \
                 p95 {p95:.2} s, p99 {p99:.2} s, {} refused; load {}",
                refused.into_inner(),
                load_average()
            );
        }
    }
}

/// Memory over time as an SVG.
fn graph(points: &[(f64, f64)], count: usize) -> String {
    let (end, top) = points
        .iter()
        .fold((1.0_f64, 1.0_f64), |(end, top), &(time, memory)| (end.max(time), top.max(memory)));
    let top = (top / 100.0).ceil() * 100.0;
    let mut line = String::new();
    for (time, memory) in points {
        let (x, y) = (60.0 + 620.0 * time / end, 220.0 - 190.0 * memory / top);
        let _ = write!(line, "{x:.1},{y:.1} ");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 260\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"720\" height=\"260\" fill=\"#fff\"/>\n<path d=\"M60 30V220H680\" \
         fill=\"none\" stroke=\"#888\"/>\n<text x=\"52\" y=\"34\" text-anchor=\"end\">{top:.0} MB</text>\n\
         <text x=\"52\" y=\"224\" text-anchor=\"end\">0</text>\n<text x=\"680\" y=\"238\" \
         text-anchor=\"end\">{end:.0} s</text>\n<text x=\"60\" y=\"20\">Memory of the process, {count} \
         requests</text>\n<polyline points=\"{}\" fill=\"none\" stroke=\"#bf3a14\" \
         stroke-width=\"2\"/>\n</svg>\n",
        line.trim_end()
    )
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let option = |name: &str| {
        arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    };
    let home = Home::at(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")));
    let model = Model::named(option("model").unwrap_or("mini"), &home).unwrap();
    let precision = match option("precision") {
        None | Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some("int8") => Precision::Int8,
        Some(other) => panic!("there is no precision {other}"),
    };
    let compute = Compute::new(Device::Cpu, Some(precision), None).unwrap();
    let settings = Settings {
        compute: compute.clone(),
        max_queue: 4096,
        ..Settings::new(vec![("it".to_owned(), model.clone())])
    };
    let bench = Bench {
        server: Running::start(settings),
        drawer: compute.drawer(&model).unwrap(),
        decoder: compute.decoder(&model, None).unwrap(),
        sampling: sampling(&model, &SamplingChanges::default()).unwrap(),
        pairs: option("pairs").map_or(7, |pairs| pairs.parse().unwrap()),
        each: option("each").map_or(8, |each| each.parse().unwrap()),
        graph: option("graph").map(str::to_owned),
    };
    // The first picture pays for pages that are touched the first time.
    assert_eq!(ask(&bench, 0), 200);
    let wanted = |name: &str| arguments.iter().any(|argument| argument == name);
    let mut capacity = None;
    if wanted("throughput") {
        capacity = Some(bench.throughput());
    }
    if wanted("first-row") {
        bench.first_row();
    }
    if wanted("idle") {
        bench.idle();
    }
    if wanted("rude") {
        bench.rude();
    }
    if let Some(count) = option("soak") {
        bench.soak(count.parse().unwrap());
    }
    if wanted("latency") {
        let capacity = capacity.unwrap_or_else(|| bench.serve(bench.each * CLIENTS).0);
        bench.latency(capacity);
    }
}
