//! A small HTTP client that can be slow, rude and wrong, and a server to ask.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use server::{Server, Settings};
use tokio::sync::oneshot;

/// A server on a thread of its own, on a port that was free.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts it and waits until it takes requests.
    pub(crate) fn start(mut settings: Settings) -> Self {
        "127.0.0.1:0".clone_into(&mut settings.listen);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("the system gives threads");
            runtime.block_on(async {
                let server = Server::bind(settings).await.expect("the settings are right");
                let address = server.address();
                let stop = async { drop(stopped.await) };
                let ready = move || ready.send(address).expect("the test waits");
                server.run(stop, ready).await.expect("the model can be loaded");
            });
            runtime.shutdown_background();
        });
        let address = is_ready.recv().expect("the server starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Asks it to end, without waiting.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has ended.
    pub(crate) fn join(mut self) {
        self.stop();
        self.thread.take().expect("it is joined once").join().expect("the server does not panic");
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Exchange::open(self.address, "GET", path, &[], b"").finish()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, &[], body)
    }

    pub(crate) fn post_with(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        self.stream(path, headers, body).finish()
    }

    /// Sends a body in JSON and reads the head of the answer alone.
    pub(crate) fn stream(&self, path: &str, headers: &[&str], body: &str) -> Exchange {
        let mut all = vec!["Content-Type: application/json"];
        all.extend(headers);
        Exchange::open(self.address, "POST", path, &all, body.as_bytes())
    }

    /// Sends a form with the file `image` and these fields.
    pub(crate) fn upload(&self, path: &str, image: &[u8], fields: &[(&str, &str)]) -> Answer {
        let mut body = Vec::new();
        for (name, value) in fields {
            let head = format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend(format!("{head}{value}\r\n").as_bytes());
        }
        body.extend(
            b"--edge\r\nContent-Disposition: form-data; name=\"image\"; filename=\"../x.png\"\r\n\r\n",
        );
        body.extend(image);
        body.extend(b"\r\n--edge--\r\n");
        let kind = "Content-Type: multipart/form-data; boundary=edge";
        Exchange::open(self.address, "POST", path, &[kind], &body).finish()
    }

    /// Sends bytes as they are and reads whatever comes back.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = connect(self.address);
        // The server may answer and close before it has read all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout may be set");
    stream.set_nodelay(true).expect("it may be set");
    stream
}

/// An answer whose body is still being read.
pub(crate) struct Exchange {
    reader: BufReader<TcpStream>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An event of a stream.
#[derive(Debug, Clone)]
pub(crate) struct ServerEvent {
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Exchange {
    pub(crate) fn open(
        address: SocketAddr,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Self {
        Self::on(connect(address), method, path, headers, body)
    }

    /// Asks on a connection that is open already.
    pub(crate) fn on(
        mut stream: TcpStream,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if method != "GET" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("the server reads");
        // It may refuse a large body before it has all of it.
        let _ = stream.write_all(body);
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("the server answers");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("the server answers");
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        Self { reader, status, headers }
    }

    fn is_chunked(&self) -> bool {
        self.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked")
    }

    /// The next piece of the body; `None` at its end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok((length > 0).then_some(bytes))
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) fn event(&mut self) -> Option<ServerEvent> {
        loop {
            let bytes = self.chunk().expect("the stream is ended properly")?;
            let text = String::from_utf8(bytes).expect("events are text");
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            let (Some(name), Some(data)) = (field("event: "), field("data: ")) else {
                continue; // to keep the connection alive
            };
            let data = serde_json::from_str(data).expect("data are JSON");
            return Some(ServerEvent { name: name.to_owned(), data });
        }
    }

    /// All events that are still to come.
    pub(crate) fn events(mut self) -> Vec<ServerEvent> {
        std::iter::from_fn(|| self.event()).collect()
    }

    pub(crate) fn finish(mut self) -> Answer {
        let mut body = Vec::new();
        if self.is_chunked() {
            while let Some(chunk) = self.chunk().expect("the body is ended properly") {
                body.extend(chunk);
            }
        } else {
            self.reader.read_to_end(&mut body).expect("the server answers");
        }
        Answer { status: self.status, headers: self.headers, body }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The error's code and field.
    pub(crate) fn error(&self) -> (String, Option<String>) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        assert!(error["type"].is_string(), "{error}");
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        (text("code").expect("errors have a code"), text("param"))
    }

    /// The pictures of an answer in JSON.
    pub(crate) fn pictures(&self) -> Vec<Vec<u8>> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        json["data"].as_array().expect("there are data").iter().map(picture).collect()
    }
}

/// The bytes of a picture in base64.
pub(crate) fn picture(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value["b64_json"].as_str().expect("a picture")).expect("it is base64")
}

/// The tokens of an event or an answer.
pub(crate) fn tokens(value: &Value) -> Vec<u16> {
    serde_json::from_value(value["tokens"].clone()).expect("there are tokens")
}
