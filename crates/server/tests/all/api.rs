//! What is answered.

use std::thread;

use pipeline::SamplingChanges;
use pixels::Picture;
use serde_json::json;

use crate::{
    MODEL, SHARED,
    client::{picture, tokens},
    compute, decoder, expected,
};

#[test]
fn should_give_the_bytes_of_the_command_line_whatever_else_is_drawn() {
    let changes = |guidance| SamplingChanges { guidance, ..SamplingChanges::default() };
    let cases = [(0, None), (2, None), (3, Some(1.0)), (6, Some(5.0)), (8, None)];
    thread::scope(|scope| {
        // Others that come and leave in the middle.
        for seed in 0..6 {
            scope.spawn(move || {
                let body = json!({"class": 1, "seed": seed, "n": 3}).to_string();
                let mut stream = SHARED.stream("/v1/pictures", &[], &body);
                (0..seed).for_each(|_| drop(stream.event()));
            });
        }
        for (class, guidance) in cases {
            scope.spawn(move || {
                let seed = 40 + class as u64;
                let expected = expected(class, 3, seed, &changes(guidance));
                let mut body = json!({"class": class, "seed": seed, "n": 3});
                if let Some(guidance) = guidance {
                    body["guidance"] = json!(guidance);
                }
                let answer = SHARED.post("/v1/images/generations", &body.to_string());
                let pngs: Vec<_> = expected.iter().map(|(_, png)| png.clone()).collect();
                assert_eq!(answer.pictures(), pngs, "class {class}");
                // Each of them alone, by its number.
                body["n"] = json!(1);
                body["index"] = json!(2);
                let answer = SHARED.post("/v1/images/generations", &body.to_string());
                assert_eq!(answer.pictures(), pngs[2..], "class {class}");
            });
        }
    });
}

#[test]
fn should_tell_of_every_row_with_its_tokens_and_previews() {
    let (expected, png) = expected(4, 1, 9, &SamplingChanges::default()).remove(0);
    let body = json!({"class": "objects", "seed": 9, "previews": 3}).to_string();
    let stream = SHARED.stream("/v1/pictures", &[], &body);
    assert_eq!(stream.status, 200);
    let kind = stream.headers.iter().find(|(name, _)| name == "content-type").unwrap();
    assert_eq!(kind.1, "text/event-stream");
    let events = stream.events();
    let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    let rows = MODEL.config.tokenizer.layout().rows();
    let mut told = vec!["queued", "prefix"];
    told.extend(vec!["row"; rows]);
    told.push("finished");
    assert_eq!(names, told);
    assert_eq!((&events[0].data["seed"], &events[0].data["class"]), (&json!(9), &json!(4)));
    let mut so_far = Vec::new();
    for event in &events[1..events.len() - 1] {
        so_far.extend(tokens(&event.data));
        let row = event.data["row"].as_u64().unwrap() as usize;
        let preview = event.data.get("preview");
        assert_eq!(preview.is_some(), row > 0 && row < rows && row.is_multiple_of(3), "row {row}");
        if let Some(preview) = preview {
            let shown = Picture::decode(&picture(preview), "preview").unwrap();
            assert_eq!((shown.width(), shown.height()), (64, 8 * row));
        }
    }
    let finished = &events.last().unwrap().data;
    assert_eq!(so_far, expected);
    assert_eq!(tokens(finished), expected);
    assert_eq!(picture(finished), png);
    // Without a stream the same comes at once.
    let body = json!({"class": 4, "seed": 9, "stream": false}).to_string();
    let answer = SHARED.post("/v1/pictures", &body);
    assert_eq!(answer.pictures(), [png]);
}

#[test]
fn should_stream_as_openai_does() {
    let body = json!({"prompt": "Flags", "seed": 3, "stream": true, "partial_images": 2});
    let events = SHARED.stream("/v1/images/generations", &[], &body.to_string()).events();
    let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    let [partial, completed] = ["image_generation.partial_image", "image_generation.completed"];
    assert_eq!(names, [partial, partial, completed]);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.data["type"], event.name);
        let shown = Picture::decode(&picture(&event.data), "it").unwrap();
        assert_eq!((shown.width(), shown.height()), (64, 64));
        if event.name == partial {
            assert_eq!(event.data["partial_image_index"], number);
        }
    }
    let whole = expected(2, 1, 3, &SamplingChanges::default()).remove(0).1;
    assert_eq!(picture(&events[2].data), whole);
}

#[test]
fn should_draw_and_return_a_seed_where_none_is_given() {
    let first = SHARED.post("/v1/images/generations", r#"{"prompt": "Symbols"}"#);
    let seed = first.json()["seed"].as_u64().unwrap();
    let again = json!({"prompt": "Symbols", "seed": seed}).to_string();
    assert_eq!(SHARED.post("/v1/images/generations", &again).pictures(), first.pictures());
}

#[test]
fn should_keep_the_top_of_a_picture_and_redraw_from_any_row() {
    let layout = MODEL.config.tokenizer.layout();
    let (_, png) = expected(1, 1, 12, &SamplingChanges::default()).remove(0);
    let encoder = compute().encoder(&MODEL).unwrap();
    let encoded = encoder.encode(&Picture::decode(&png, "it").unwrap()).unwrap();
    let fields = [("rows", "3"), ("class", "1"), ("n", "2"), ("seed", "5"), ("stream", "false")];
    let answer = SHARED.upload("/v1/completions/pictures", &png, &fields);
    let answer = answer.json();
    for picture in answer["data"].as_array().unwrap() {
        assert_eq!(tokens(picture)[..layout.len_of_rows(3)], encoded[..layout.len_of_rows(3)]);
    }
    let whole = tokens(&answer["data"][0]);
    assert_ne!(whole, tokens(&answer["data"][1]));
    // The same from its tokens.
    let body = json!({
        "tokens": encoded, "rows": 3, "class": 1, "seed": 5, "stream": false,
    });
    let redrawn = SHARED.post("/v1/pictures", &body.to_string()).json();
    assert_eq!(tokens(&redrawn["data"][0]), whole);
    // All rows kept: nothing is drawn.
    let body = json!({"tokens": encoded, "class": 1, "stream": false}).to_string();
    assert_eq!(tokens(&SHARED.post("/v1/pictures", &body).json()["data"][0]), encoded);
}

#[test]
fn should_encode_decode_and_reconstruct_as_the_pipeline_does() {
    let photo = std::fs::read(fixtures::fixture("photo_0.png")).unwrap();
    let image = MODEL.config.tokenizer.image;
    let fitted = pixels::crop::Crop::Center
        .fit(Picture::decode(&photo, "photo").unwrap(), image.width, image.height, "photo")
        .unwrap();
    let own = compute().encoder(&MODEL).unwrap().encode(&fitted).unwrap();
    let rebuilt = decoder().decode(&own).unwrap().encode_png();
    let answer = SHARED.upload("/v1/encode", &photo, &[]);
    assert_eq!(tokens(&answer.json()), own);
    let answer = SHARED.upload("/v1/reconstruct", &photo, &[("output_format", "png")]).json();
    assert_eq!((tokens(&answer), picture(&answer)), (own.clone(), rebuilt.clone()));
    // One picture or several, in JSON or as the command line writes them.
    for list in [json!(own), json!([own, own])] {
        let body = json!({"tokens": list}).to_string();
        let pictures = SHARED.post("/v1/decode", &body).pictures();
        assert!(!pictures.is_empty() && pictures.iter().all(|it| *it == rebuilt));
    }
    let values: Vec<u8> = own.iter().flat_map(|&token| i64::from(token).to_le_bytes()).collect();
    let shape = vec![1, own.len()];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, shape, &values);
    let file = safetensors::serialize([("tokens", view.unwrap())], None).unwrap();
    let kind = "Content-Type: application/octet-stream";
    let answer =
        crate::client::Exchange::open(SHARED.address, "POST", "/v1/decode", &[kind], &file);
    assert_eq!(answer.finish().pictures(), [rebuilt]);
    // In base64, as pages have pictures.
    use base64::{Engine, prelude::BASE64_STANDARD};
    let data = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&photo));
    let answer = SHARED.post("/v1/encode", &json!({"image": data, "model": "mini"}).to_string());
    assert_eq!(tokens(&answer.json()), own);
}

#[test]
fn should_encode_pictures_as_asked() {
    let get = |format: &str| {
        let body = json!({"class": 6, "seed": 1, "output_format": format}).to_string();
        SHARED.post("/v1/images/generations", &body).pictures().remove(0)
    };
    let [png, jpeg, webp] = ["png", "jpeg", "webp"].map(get);
    assert!(png.starts_with(b"\x89PNG") && jpeg.starts_with(b"\xFF\xD8"));
    assert_eq!(&webp[8..12], b"WEBP");
    let [png, jpeg, webp] = [png, jpeg, webp].map(|it| Picture::decode(&it, "it").unwrap());
    assert_eq!(webp, png, "it is lossless");
    let difference = |a: &u8, b: &u8| u64::from(a.abs_diff(*b));
    let total: u64 = jpeg.rgb().iter().zip(png.rgb()).map(|(a, b)| difference(a, b)).sum();
    assert!(total / (png.rgb().len() as u64) < 8, "{total}");
}

#[test]
fn should_list_models_with_what_a_page_needs() {
    let list = SHARED.get("/v1/models").json();
    let model = &list["data"][0];
    assert_eq!((&list["object"], &model["object"]), (&json!("list"), &json!("model")));
    assert_eq!(model["classes"], serde_json::to_value(MODEL.classes.to_vec()).unwrap());
    assert_eq!(model["defaults"]["guidance"], MODEL.config.sampling.guidance);
    assert_eq!(SHARED.get("/v1/models/mini").json(), *model);
}

#[test]
fn should_serve_a_page_that_needs_no_network_and_describe_itself() {
    let page = SHARED.get("/");
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.header("content-security-policy").unwrap().contains("connect-src 'self'"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import", "//cdn"] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert!(text.contains("href=\"licences\""));
    let licences = SHARED.get("/licences");
    assert!(licences.header("content-type").unwrap().starts_with("text/plain"));
    assert_eq!(String::from_utf8(licences.body).unwrap(), "Everybody's.\n");
    let document = SHARED.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/images/generations",
        "/v1/models",
        "/v1/models/{id}",
        "/v1/pictures",
        "/v1/pictures/{id}",
        "/v1/completions/pictures",
        "/v1/encode",
        "/v1/decode",
        "/v1/reconstruct",
        "/health",
        "/ready",
        "/metrics",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    assert_eq!(server::openapi(), String::from_utf8(SHARED.get("/openapi.json").body).unwrap());
}
