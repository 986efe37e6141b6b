//! Queues, keys, limits and endings.

use std::{
    thread,
    time::{Duration, Instant},
};

use fixtures::Scratch;
use serde_json::json;
use server::{Keys, Settings};

use crate::{
    MODEL,
    client::{Exchange, Running},
    settings,
};

/// Waits until a condition holds that the server brings about.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not come about");
}

fn metric(server: &Running, line: &str) -> f64 {
    let page = String::from_utf8(server.get("/metrics").body).unwrap();
    let value = page.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

const DRAWING: &str = r#"alitok_drawing_pictures{model="mini"}"#;
const WAITING: &str = r#"alitok_queue_pictures{model="mini"}"#;

fn body(n: usize) -> String {
    json!({"class": 2, "seed": 1, "n": n}).to_string()
}

#[test]
fn should_refuse_more_than_may_wait_and_free_the_places_of_who_left() {
    let server = Running::start(Settings { batch: 1, max_queue: 9, ..settings() });
    let mut first = server.stream("/v1/pictures", &[], &body(10));
    assert_eq!(first.event().unwrap().name, "queued");
    let refused = server.post("/v1/pictures", &body(10));
    assert_eq!((refused.status, refused.error().0.as_str()), (429, "queue_full"));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    until("its pictures wait", || metric(&server, WAITING) >= 5.0);
    // Dropped, it makes room at once: for what waits, and for what is drawn after at most a step.
    drop(first);
    until("its places are free", || metric(&server, WAITING) + metric(&server, DRAWING) == 0.0);
    let mut again = server.stream("/v1/pictures", &[], &body(10));
    let queued = again.event().unwrap();
    assert_eq!(queued.data["position"], 9);
    // More than there will ever be room for is another mistake than coming too early.
    let server = Running::start(Settings { batch: 1, max_queue: 2, ..settings() });
    let refused = server.post("/v1/pictures", &body(10));
    assert_eq!((refused.status, refused.error().1.as_deref()), (400, Some("n")));
}

#[test]
fn should_cancel_by_id() {
    let server = Running::start(Settings { batch: 1, ..settings() });
    let mut stream = server.stream("/v1/pictures", &[], &body(10));
    let id = stream.event().unwrap().data["id"].as_str().unwrap().to_owned();
    let delete = || {
        let path = format!("/v1/pictures/{id}");
        Exchange::open(server.address, "DELETE", &path, &[], b"").finish()
    };
    assert_eq!(delete().json()["cancelled"], true);
    let events = stream.events();
    let failed: Vec<_> = events.iter().filter(|event| event.name == "failed").collect();
    assert!(failed.len() >= 5, "{events:?}");
    assert!(failed.iter().all(|event| event.data["error"]["code"] == "cancelled"));
    until("its places are free", || metric(&server, DRAWING) == 0.0);
    assert_eq!(delete().status, 404);
    assert!(metric(&server, r#"alitok_pictures_total{model="mini",outcome="cancelled"}"#) >= 5.0);
}

fn keys(folder: &Scratch, lines: &str) -> Option<Keys> {
    Some(Keys::read(folder.write("keys", lines)).unwrap())
}

#[test]
fn should_let_in_who_has_a_key_and_be_fair_between_them() {
    let folder = Scratch::new();
    let keys = keys(&folder, "greedy-key greedy\nmodest-key modest\nsmall-key small pictures=2\n");
    let server = Running::start(Settings { batch: 2, keys, ..settings() });
    let authorized = |key: &str| format!("Authorization: Bearer {key}");
    for headers in [&[][..], &["Authorization: Bearer wrong"], &["Authorization: Basic greedy-key"]]
    {
        let answer = server.post_with("/v1/pictures", headers, &body(1));
        assert_eq!((answer.status, answer.error().0.as_str()), (401, "invalid_api_key"));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(server.get("/health").status, 200, "probes need no key");
    let small = authorized("small-key");
    let answer = server.post_with("/v1/pictures", &[&small], &body(3));
    assert_eq!((answer.status, answer.error().0.as_str()), (429, "client_limit"));

    let greedy = authorized("greedy-key");
    let mut first = server.stream("/v1/pictures", &[&greedy], &body(10));
    let id = first.event().unwrap().data["id"].as_str().unwrap().to_owned();
    let _more: Vec<_> =
        (0..3).map(|_| server.stream("/v1/pictures", &[&greedy], &body(10))).collect();
    // Nobody cancels what is another's.
    let modest = authorized("modest-key");
    let path = format!("/v1/pictures/{id}");
    let answer = Exchange::open(server.address, "DELETE", &path, &[&modest], b"").finish();
    assert_eq!(answer.status, 404);
    // Behind forty pictures, it is the next one's turn.
    let finished = r#"alitok_pictures_total{model="mini",outcome="finished"}"#;
    let before = metric(&server, finished);
    let answer = server.post_with("/v1/images/generations", &[&modest], &body(2));
    assert_eq!(answer.pictures().len(), 2);
    let between = metric(&server, finished) - before;
    assert!(between <= 10.0, "{between} pictures were finished before");
}

#[test]
fn should_give_up_after_the_deadline() {
    let server = Running::start(Settings { batch: 1, ..settings() });
    let body = json!({"class": 1, "n": 10, "deadline": 0.03}).to_string();
    let answer = server.post("/v1/images/generations", &body);
    assert_eq!((answer.status, answer.error().0.as_str()), (504, "deadline"));
    until("its places are free", || metric(&server, DRAWING) == 0.0);
}

#[test]
fn should_end_in_order_with_streams_open_and_within_ten_seconds() {
    let mut server = Running::start(Settings { batch: 1, ..settings() });
    let address = server.address;
    // Idle connections must not hold the end back.
    let _idle: Vec<_> = (0..20).map(|_| crate::client::connect(address)).collect();
    let streams: Vec<_> = (0..25)
        .map(|_| {
            let mut stream = server.stream("/v1/pictures", &[], &body(10));
            assert_eq!(stream.event().unwrap().name, "queued");
            stream
        })
        .collect();
    let begun = Instant::now();
    server.stop();
    until("it refuses", || {
        let ready = server.get("/ready");
        ready.status == 503 && ready.header("retry-after").is_some()
    });
    let refused = server.post("/v1/pictures", &body(1));
    assert_eq!((refused.status, refused.error().0.as_str()), (503, "shutting_down"));
    assert_eq!(server.get("/health").status, 200, "it is alive");
    let ended: Vec<_> =
        streams.into_iter().map(|stream| thread::spawn(move || stream.events())).collect();
    server.join();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for events in ended {
        // Each stream is whole, and says of each picture how it ended.
        let events = events.join().unwrap();
        let end = |event: &&crate::client::ServerEvent| {
            event.name == "finished" || event.data["error"]["code"] == "shutting_down"
        };
        assert_eq!(events.iter().filter(end).count(), 10);
    }
}

#[test]
fn should_answer_first_requests_that_come_after_the_end_was_asked_for() {
    let mut server = Running::start(Settings { batch: 1, ..settings() });
    let _drawing = server.stream("/v1/pictures", &[], &body(10));
    let new: Vec<_> = (0..5).map(|_| crate::client::connect(server.address)).collect();
    until("they are accepted", || metric(&server, "alitok_connections") >= 6.0);
    server.stop();
    until("it refuses", || server.get("/ready").status == 503);
    for stream in new {
        let answer = Exchange::on(stream, "POST", "/v1/pictures", &[], b"").finish();
        assert_eq!((answer.status, answer.error().0.as_str()), (503, "shutting_down"));
    }
}

#[test]
fn should_load_models_when_asked_for_and_let_them_go_for_others() {
    let models = ["a", "b"].map(|id| (id.to_owned(), MODEL.clone())).to_vec();
    // Room for one of them, not for two.
    let memory_limit = Some(50 << 20);
    let server = Running::start(Settings { models, memory_limit, batch: 1, ..settings() });
    let loaded = || -> Vec<bool> {
        let list = server.get("/v1/models").json();
        list["data"].as_array().unwrap().iter().map(|it| it["loaded"] == true).collect()
    };
    assert_eq!(loaded(), [true, false], "the first is loaded at start");
    let draw = |id: &str| {
        let body = json!({"model": id, "class": 1, "seed": 3}).to_string();
        server.post("/v1/images/generations", &body)
    };
    let first = draw("a").pictures();
    assert_eq!(draw("b").pictures(), first);
    assert_eq!(draw("c").status, 404);
    assert_eq!(loaded(), [false, true]);
    assert_eq!(draw("a").pictures(), first);
    assert_eq!(loaded(), [true, false]);
}

#[test]
fn should_let_pages_from_elsewhere_ask_only_if_they_are_named() {
    let origin = "Origin: https://example.org";
    let ask = |server: &Running| {
        let answer = Exchange::open(server.address, "GET", "/v1/models", &[origin], b"").finish();
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(ask(&crate::SHARED), None);
    let cors = vec!["https://example.org".to_owned()];
    let server = Running::start(Settings { cors, ..settings() });
    assert_eq!(ask(&server).as_deref(), Some("https://example.org"));
    let preflight = [origin, "Access-Control-Request-Method: POST"];
    let answer =
        Exchange::open(server.address, "OPTIONS", "/v1/pictures", &preflight, b"").finish();
    assert_eq!(answer.status, 200);
    assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
}

#[test]
fn should_give_each_request_an_id_and_count_it() {
    let server = Running::start(settings());
    let answer = server.get("/v1/models");
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    let own = Exchange::open(server.address, "GET", "/health", &["X-Request-Id: mine-1"], b"");
    assert_eq!(own.finish().header("x-request-id"), Some("mine-1"));
    let rude = ["X-Request-Id: with space\u{7f}"];
    let rude = Exchange::open(server.address, "GET", "/health", &rude, b"").finish();
    assert_ne!(rude.header("x-request-id"), Some("with space\u{7f}"));
    assert_eq!(server.post("/v1/images/generations", &body(2)).status, 200);
    assert_eq!(server.post("/v1/images/generations", "{").status, 400);
    let layout = MODEL.config.tokenizer.layout();
    let tokens = metric(&server, r#"alitok_tokens_total{model="mini"}"#);
    assert_eq!(tokens, 2.0 * layout.len() as f64);
    let steps = metric(&server, r#"alitok_steps_total{model="mini"}"#);
    assert!((layout.len() as f64..=tokens).contains(&steps), "{steps}");
    assert_eq!(metric(&server, r#"alitok_refused_total{code="invalid_json"}"#), 1.0);
    assert_eq!(metric(&server, r#"alitok_first_row_seconds_count{model="mini"}"#), 2.0);
    assert!(metric(&server, "alitok_resident_bytes") > 1e6);
}
