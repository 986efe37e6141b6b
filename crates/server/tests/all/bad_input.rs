//! Whatever is sent, the answer is a typed error, soon, and nothing else is disturbed.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use pipeline::SamplingChanges;
use serde_json::json;

use crate::{
    SHARED,
    client::{Answer, Exchange, connect},
    expected,
};

/// Asks up to three times, since other tests may hold the processors, and checks that one answer came soon.
fn soon(what: &str, ask: impl Fn() -> Answer) -> Answer {
    let mut times = Vec::new();
    loop {
        let begun = Instant::now();
        let answer = ask();
        times.push(begun.elapsed());
        if times.last().unwrap() < &Duration::from_millis(100) {
            return answer;
        }
        assert!(times.len() < 3, "{what} took {times:?}");
    }
}

fn check(path: &str, body: &str, status: u16, param: Option<&str>) {
    let what = &body[..body.len().min(120)];
    let answer = soon(what, || SHARED.post(path, body));
    assert_eq!(answer.status, status, "{what}: {}", String::from_utf8_lossy(&answer.body));
    let (_, found) = answer.error();
    assert_eq!(found.as_deref(), param, "{what}");
}

#[test]
fn should_say_which_field_is_wrong() {
    let long = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(500_000));
    let many = format!(r#"{{"class": 1, "tokens": [{}0]}}"#, "0,".repeat(100_000));
    for (body, status, param) in [
        (r#"{"class": 1, "n": 1000000000000}"#, 400, Some("n")),
        (r#"{"class": 1, "n": 0}"#, 400, Some("n")),
        (r#"{"class": 1, "n": -1}"#, 400, Some("n")),
        (r#"{"class": 1, "n": 1.5}"#, 400, Some("n")),
        (r#"{"class": 1, "n": "many"}"#, 400, Some("n")),
        (r#"{"class": 1, "n": 99999999999999999999999}"#, 400, Some("n")),
        (r#"{"class": -1}"#, 400, Some("class")),
        (r#"{"class": 9}"#, 400, Some("class")),
        (r#"{"class": {"a": 1}}"#, 400, Some("class")),
        (r#"{"class": "Flgs"}"#, 400, Some("class")),
        (r#"{"prompt": "a cat on a mat"}"#, 400, Some("prompt")),
        (r#"{"prompt": ""}"#, 400, Some("prompt")),
        ("{}", 400, Some("prompt")),
        (&long, 400, Some("prompt")),
        (r#"{"class": 1, "guidance": NaN}"#, 400, None),
        (r#"{"class": 1, "guidance": 1e999}"#, 400, None),
        (r#"{"class": 1, "guidance": -5}"#, 400, Some("guidance")),
        (r#"{"class": 1, "temperature": -0.5}"#, 400, Some("temperature")),
        (r#"{"class": 1, "temperature": "hot"}"#, 400, Some("temperature")),
        (r#"{"class": 1, "top_p": 7}"#, 400, Some("top_p")),
        (r#"{"class": 1, "top_k": -7}"#, 400, Some("top_k")),
        (r#"{"class": 1, "seed": -7}"#, 400, Some("seed")),
        (r#"{"class": 1, "seed": 18446744073709551616}"#, 400, Some("seed")),
        (r#"{"class": 1, "index": 18446744073709551615}"#, 400, Some("index")),
        (r#"{"class": 1, "size": "1024x1024"}"#, 400, Some("size")),
        (r#"{"class": 1, "response_format": "url"}"#, 400, Some("response_format")),
        (r#"{"class": 1, "output_format": "bmp"}"#, 400, Some("output_format")),
        (r#"{"class": 1, "output_compression": 101}"#, 400, Some("output_compression")),
        (r#"{"class": 1, "partial_images": 4}"#, 400, Some("partial_images")),
        (r#"{"class": 1, "deadline": 0}"#, 400, Some("deadline")),
        (r#"{"class": 1, "guidence": 3}"#, 400, Some("guidence")),
        (r#"{"class": 1, "model": "../../../etc/passwd"}"#, 404, Some("model")),
        (r#"{"class": 1, "tokens": [4096]}"#, 422, Some("tokens")),
        (r#"{"class": 1, "tokens": [-1]}"#, 422, Some("tokens")),
        (r#"{"class": 1, "tokens": ["a"]}"#, 400, Some("tokens[0]")),
        (r#"{"class": 1, "tokens": [1], "rows": 4}"#, 400, Some("rows")),
        (&many, 422, Some("tokens")),
        (r#"{"class": 1}{"class": 2}"#, 400, None),
        (r#"{"class": 1"#, 400, None),
        ("[1, 2]", 400, None),
        ("", 400, None),
        ("null", 400, None),
    ] {
        check("/v1/images/generations", body, status, param);
        // That field is OpenAI's alone.
        if param != Some("partial_images") {
            check("/v1/pictures", body, status, param);
        }
    }
}

#[test]
fn should_refuse_bodies_that_are_no_json() {
    let post = |headers: &[&str], body: &[u8]| {
        soon("a body", || {
            Exchange::open(SHARED.address, "POST", "/v1/pictures", headers, body).finish()
        })
    };
    let json = "Content-Type: application/json";
    assert_eq!(post(&[json], b"\xff\xfe{}").error().0, "invalid_json");
    assert_eq!(post(&[json], b"{\"prompt\": \"\xff\"}").status, 400);
    let deep = "[".repeat(200_000);
    assert_eq!(post(&[json], deep.as_bytes()).error().0, "invalid_json");
    assert_eq!(post(&[], b"{}").status, 415);
    assert_eq!(post(&["Content-Type: text/plain"], b"{\"class\": 1}").status, 415);
    let large = vec![b' '; (1 << 20) + 1];
    let answer = post(&[json], &large);
    assert_eq!((answer.status, answer.error().0.as_str()), (413, "body_too_large"));
}

#[test]
fn should_refuse_what_is_no_http_and_go_on() {
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(2000));
    for (bytes, status) in [
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (b"\x00\x01\x02 nonsense\r\n\r\n".as_slice(), "400"),
        (b"GET / HTTP/9.9\r\n\r\n".as_slice(), "400"),
        (b"POST /v1/pictures HTTP/1.1\r\nContent-Length: x\r\n\r\n".as_slice(), "400"),
    ] {
        let begun = Instant::now();
        let answer = SHARED.raw(bytes);
        let head = String::from_utf8_lossy(&bytes[..30.min(bytes.len())]);
        // An answer may be lost where the client still sends while the connection is closed.
        let lost = answer.is_empty() && bytes.len() > 100_000;
        assert!(lost || answer.contains(&format!(" {status} ")), "{head:?}: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{head:?}");
    }
    assert_eq!(SHARED.get("/health").status, 200);
}

#[test]
fn should_not_leave_its_paths() {
    for path in ["/../etc/passwd", "/v1/models/..%2f..%2fetc", "/%2e%2e/x", "/v1/nothing", "/v1"] {
        let answer = soon(path, || SHARED.get(path));
        assert_eq!(answer.status, 404, "{path}");
        answer.error();
    }
    assert_eq!(SHARED.get("/v1/models/%ff").status, 400);
    let delete = |id: &str| {
        let path = format!("/v1/pictures/{id}");
        Exchange::open(SHARED.address, "DELETE", &path, &[], b"").finish().status
    };
    assert_eq!(delete("..%2f..%2fx"), 404);
    assert_eq!(delete(&"x".repeat(10_000)), 404);
    let answer = Exchange::open(SHARED.address, "PUT", "/v1/pictures", &[], b"").finish();
    assert_eq!((answer.status, answer.error().0.as_str()), (405, "method_not_allowed"));
}

/// A PNG that says it has this size and whose pixels are missing.
fn head_of_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    // The pixels are never written.
    drop(encoder.write_header().unwrap());
    bytes
}

/// A PNG of 64 × 64 pixels with 64 MB of compressed text.
fn bomb() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_ztxt_chunk("Comment".to_owned(), "a".repeat(64 << 20)).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[9; 64 * 64 * 3]).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn should_refuse_uploads_that_are_no_usable_picture() {
    let encode = |image: &[u8]| soon("an upload", || SHARED.upload("/v1/encode", image, &[]));
    for (image, status, code) in [
        (head_of_png(60_000, 60_000), 413, "picture_too_large"),
        (head_of_png(20_000, 20_000), 413, "picture_too_large"),
        (head_of_png(64, 64), 422, "unusable_content"),
        (b"GIF89a".to_vec(), 422, "unusable_content"),
        (b"MZ not a picture".to_vec(), 422, "unusable_content"),
        (Vec::new(), 422, "unusable_content"),
    ] {
        let answer = encode(&image);
        assert_eq!((answer.status, answer.error().0.as_str()), (status, code));
    }
    // More than may be uploaded at all.
    let huge = vec![0; (20 << 20) + (2 << 20)];
    let answer = SHARED.upload("/v1/encode", &huge, &[]);
    assert_eq!((answer.status, answer.error().0.as_str()), (413, "body_too_large"));
    // Text is not read, however large it would become.
    let bomb = bomb();
    assert!(bomb.len() < 1 << 20);
    assert_eq!(encode(&bomb).status, 200);
    // Fields of the form.
    let good = expected(0, 1, 0, &SamplingChanges::default()).remove(0).1;
    let complete =
        |fields: &[(&str, &str)]| SHARED.upload("/v1/completions/pictures", &good, fields);
    for (fields, param) in [
        (&[("class", "1")][..], "rows"),
        (&[("class", "1"), ("rows", "0")], "rows"),
        (&[("class", "1"), ("rows", "9")], "rows"),
        (&[("class", "1"), ("rows", "two")], "rows"),
        (&[("rows", "1")], "prompt"),
        (&[("class", "1"), ("rows", "1"), ("rows", "2")], "rows"),
        (&[("class", "1"), ("rows", "1"), ("guidance", "NaN")], "guidance"),
    ] {
        let answer = complete(fields);
        assert_eq!((answer.status, answer.error().1.as_deref()), (400, Some(param)), "{fields:?}");
    }
    let answer = SHARED.post("/v1/encode", &json!({"image": "no base64!"}).to_string());
    assert_eq!(answer.error().1.as_deref(), Some("image"));
    assert_eq!(SHARED.post("/v1/encode", "{}").error().1.as_deref(), Some("image"));
    for body in [r#"{"tokens": []}"#, r#"{"tokens": [[]]}"#, r#"{"tokens": [1, 2]}"#, "{}"] {
        let status = SHARED.post("/v1/decode", body).status;
        assert!(status == 400 || status == 422, "{body}: {status}");
    }
}

#[test]
fn should_draw_on_while_others_send_nonsense_or_nothing() {
    let (_, png) = expected(5, 1, 77, &SamplingChanges::default()).remove(0);
    // Heads that never end, and a stream that is never read.
    let mut silent: Vec<_> = (0..200).map(|_| connect(SHARED.address)).collect();
    for stream in &mut silent {
        stream.write_all(b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nContent-Le").unwrap();
    }
    let body = json!({"class": 3, "n": 10, "previews": 1}).to_string();
    let unread = SHARED.stream("/v1/pictures", &[], &body);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(SHARED.post("/v1/pictures", "{\"class\": \"?\"}").status, 400);
                }
            });
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let body = json!({"class": 5, "seed": 77}).to_string();
                let answer = SHARED.post("/v1/images/generations", &body);
                assert_eq!(answer.pictures(), std::slice::from_ref(&png));
            });
        }
    });
    drop((silent, unread));
}
