//! Fetching from a server on this machine.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use sha2::{Digest, Sha256};
use weights::public::{FetchError, Origin, PUBLIC_WEIGHTS, PublicWeights};

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Answer {
    /// All of it, or the range that is asked for.
    Ranges,
    /// All of it, whatever is asked for.
    Whole,
    /// It announces all and closes the connection after this many bytes.
    Cut(usize),
    /// Another range than the one that is asked for.
    WrongRange,
    /// 404.
    Missing,
}

/// Serves one file, one answer a request; returns the address and the ranges that were asked for.
fn serve(content: Vec<u8>, answers: &[Answer]) -> (String, Arc<Mutex<Vec<Option<u64>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file.pth", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answers, seen) = (answers.to_vec(), asked.clone());
    thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let range = read_request(&stream);
            seen.lock().unwrap().push(range);
            respond(stream, &content, answer, range);
        }
    });
    (url, asked)
}

fn read_request(stream: &TcpStream) -> Option<u64> {
    let mut range = None;
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            range = bytes.strip_suffix('-').unwrap().parse().ok();
        }
    }
    range
}

fn respond(mut stream: TcpStream, content: &[u8], answer: Answer, range: Option<u64>) {
    let total = content.len();
    let partial = |start: usize| {
        let last = total - 1;
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{last}/{total}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            total - start
        )
    };
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\nConnection: close\r\n\r\n");
    let (head, body) = match (answer, range) {
        (Answer::Ranges, Some(start)) if start as usize >= total => (
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_owned(),
            &content[..0],
        ),
        (Answer::Ranges, Some(start)) => (partial(start as usize), &content[start as usize..]),
        (Answer::WrongRange, Some(_)) => (partial(1), &content[1..]),
        (Answer::Ranges | Answer::Whole | Answer::WrongRange, _) => (whole, content),
        (Answer::Cut(bytes), start) => {
            let start = start.unwrap_or(0) as usize;
            let head = if start == 0 { whole } else { partial(start) };
            (head, &content[start..start + bytes])
        }
        (Answer::Missing, _) => (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
            &content[..0],
        ),
    };
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

fn content() -> Vec<u8> {
    (0..200_000_u32).map(|index| (index * 31 % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Weights whose hash begins as the content's does.
fn weights() -> PublicWeights {
    let prefix: &'static str = Box::leak(sha256(&content())[..8].to_owned().into_boxed_str());
    PublicWeights { file: "file.pth", sha256: prefix, ..PUBLIC_WEIGHTS[0] }
}

fn fetch(folder: &Path, url: &str) -> Result<(), FetchError> {
    weights().fetch(folder, Origin::Url(url), &mut |_, _| {}).map(drop)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn should_fetch_a_file_and_pin_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let (url, _) = serve(content(), &[Answer::Ranges]);
    let mut told = Vec::new();
    let path = weights()
        .fetch(folder.path(), Origin::Url(&url), &mut |done, total| told.push((done, total)))
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), content());
    assert_eq!(names(folder.path()), ["file.pth", "file.pth.sha256"]);
    let pin = fs::read_to_string(folder.path().join("file.pth.sha256")).unwrap();
    assert_eq!(pin, format!("{}  file.pth\n", sha256(&content())));
    assert_eq!(told.first(), Some(&(0, Some(200_000))));
    assert_eq!(told.last(), Some(&(200_000, Some(200_000))));
    assert!(told.is_sorted());
    assert_eq!(weights().verified(folder.path()).unwrap(), path);
    // It is there: no request, for nobody would answer it.
    fetch(folder.path(), &url).unwrap();
}

#[test]
fn should_go_on_where_a_connection_broke() {
    let folder = tempfile::tempdir().unwrap();
    let answers = [Answer::Cut(70_000), Answer::Cut(50_000), Answer::Ranges];
    let (url, asked) = serve(content(), &answers);
    for _ in 0..2 {
        let error = fetch(folder.path(), &url).unwrap_err();
        assert!(matches!(error, FetchError::Connection { .. }), "{error}");
        assert_eq!(names(folder.path()), ["file.pth.incomplete"]);
    }
    fetch(folder.path(), &url).unwrap();
    assert_eq!(*asked.lock().unwrap(), [None, Some(70_000), Some(120_000)]);
    assert_eq!(fs::read(folder.path().join("file.pth")).unwrap(), content());
    assert_eq!(names(folder.path()), ["file.pth", "file.pth.sha256"]);
}

#[test]
fn should_start_again_where_the_server_knows_no_ranges() {
    for (answers, requests) in [
        (&[Answer::Whole][..], 1),
        (&[Answer::WrongRange, Answer::WrongRange], 2),
        // More bytes than the file has.
        (&[Answer::Ranges, Answer::Ranges], 2),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = if matches!(answers[0], Answer::Ranges) { 300_000 } else { 1000 };
        fs::write(folder.path().join("file.pth.incomplete"), vec![9; bytes]).unwrap();
        let (url, asked) = serve(content(), answers);
        fetch(folder.path(), &url).unwrap();
        assert_eq!(asked.lock().unwrap().len(), requests);
        assert_eq!(fs::read(folder.path().join("file.pth")).unwrap(), content());
    }
}

#[test]
fn should_refuse_another_file_and_keep_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = content();
    other[100_000] ^= 1;
    let (url, _) = serve(other.clone(), &[Answer::Ranges]);
    let error = fetch(folder.path(), &url).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, FetchError::Hash { removed: true, .. }), "{told}");
    assert!(told.contains(&sha256(&other)) && told.contains(weights().sha256), "{told}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn should_refuse_a_file_that_only_begins_with_the_right_hash() {
    // The pin says that the first file was another one.
    let folder = tempfile::tempdir().unwrap();
    let pinned = format!("{}{}", weights().sha256, "0".repeat(56));
    fs::write(folder.path().join("file.pth.sha256"), format!("{pinned}  file.pth\n")).unwrap();
    let (url, _) = serve(content(), &[Answer::Ranges]);
    let told = fetch(folder.path(), &url).unwrap_err().to_string();
    assert!(told.contains(&pinned) && told.contains("first fetched"), "{told}");
    assert_eq!(names(folder.path()), ["file.pth.sha256"]);
}

#[test]
fn should_notice_a_file_that_changed_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let given = folder.path().join("given.pth");
    fs::write(&given, content()).unwrap();
    let path = weights().fetch(folder.path(), Origin::File(&given), &mut |_, _| {}).unwrap();
    weights().verified(folder.path()).unwrap();
    fs::write(&path, b"something else").unwrap();
    for result in [
        weights().verified(folder.path()),
        weights().fetch(folder.path(), Origin::Publisher, &mut |_, _| {}),
    ] {
        assert!(matches!(result, Err(FetchError::Hash { removed: false, .. })));
    }
    // A given file is the way out.
    weights().fetch(folder.path(), Origin::File(&given), &mut |_, _| {}).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content());
}

#[test]
fn should_refuse_a_given_file_that_is_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let given = folder.path().join("given.pth");
    fs::write(&given, b"something else").unwrap();
    let error = weights().fetch(folder.path(), Origin::File(&given), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, FetchError::Hash { removed: false, .. }), "{error}");
    assert_eq!(names(folder.path()), ["given.pth"]);
}

#[test]
fn should_say_what_the_server_said() {
    let folder = tempfile::tempdir().unwrap();
    let (url, _) = serve(content(), &[Answer::Missing]);
    let told = fetch(folder.path(), &url).unwrap_err().to_string();
    assert!(told.contains("404") && told.contains(&url) && told.contains("--from"), "{told}");
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file.pth", listener.local_addr().unwrap());
    drop(listener);
    let error = fetch(folder.path(), &url).unwrap_err();
    assert!(matches!(error, FetchError::Connection { .. }), "{error}");
}

#[test]
fn should_name_the_weights_that_are_missing_or_meant() {
    let folder = tempfile::tempdir().unwrap();
    let inception = PublicWeights::find("inception").unwrap();
    let told = inception.verified(folder.path()).unwrap_err().to_string();
    assert!(told.contains("alitok weights fetch inception") && told.contains(inception.url));
    let told = PublicWeights::find("lpips-vg").unwrap_err().to_string();
    assert!(told.contains("did you mean `lpips-vgg`") && told.contains("convnext-small"), "{told}");
}

#[test]
fn should_have_the_hash_in_the_file_names_that_carry_one() {
    for weights in PUBLIC_WEIGHTS {
        assert!(weights.sha256.len() == 8 || weights.sha256.len() == 64);
        assert!(weights.sha256.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
        assert!(weights.url.starts_with("https://"));
        if weights.sha256.len() == 8 {
            assert!(weights.file.ends_with(&format!("-{}.pth", weights.sha256)));
            assert!(weights.url.ends_with(weights.file));
        }
    }
}
