//! Weights of public networks: where they are published, how they are fetched, and how a file is
//! known to be the right one.
//!
//! A file counts as right if its SHA-256 begins as the table says (torchvision's rule: eight
//! digits at the end of a file name), and if the whole hash is the one that the first file had,
//! which is written beside it. What a server or a disk changes later does not go unseen.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
};

/// A file of weights that somebody else publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicWeights {
    /// What it is called here.
    pub name: &'static str,
    /// What its publisher calls the file.
    pub file: &'static str,
    /// Where it is.
    pub url: &'static str,
    /// The first digits of its SHA-256, or all, in hexadecimal.
    pub sha256: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Under what it may be used.
    pub licence: &'static str,
}

/// Every file that training and evaluation know.
pub const PUBLIC_WEIGHTS: [PublicWeights; 6] = [
    // torchvision/models/convnext.py, ConvNeXt_Small_Weights.IMAGENET1K_V1
    PublicWeights {
        name: "convnext-small",
        file: "convnext_small-0c510722.pth",
        url: "https://download.pytorch.org/models/convnext_small-0c510722.pth",
        sha256: "0c510722",
        what: "ConvNeXt-S on ImageNet: the paper's perceptual loss",
        licence: "BSD-3-Clause (torchvision)",
    },
    // torchvision/models/vgg.py, VGG16_Weights.IMAGENET1K_V1
    PublicWeights {
        name: "vgg16",
        file: "vgg16-397923af.pth",
        url: "https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256: "397923af",
        what: "VGG16 on ImageNet: LPIPS in training and evaluation",
        licence: "BSD-3-Clause (torchvision)",
    },
    // torchvision/models/alexnet.py, AlexNet_Weights.IMAGENET1K_V1
    PublicWeights {
        name: "alexnet",
        file: "alexnet-owt-7be5be79.pth",
        url: "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256: "7be5be79",
        what: "AlexNet on ImageNet: LPIPS in evaluation",
        licence: "BSD-3-Clause (torchvision)",
    },
    // The repository of LPIPS; the hashes are those of the same files in its PyPI package 0.1.4.
    PublicWeights {
        name: "lpips-vgg",
        file: "lpips-vgg.pth",
        url: "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
        sha256: "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        what: "LPIPS 0.1: weights of VGG16's channels",
        licence: "BSD-2-Clause (Zhang et al.)",
    },
    PublicWeights {
        name: "lpips-alex",
        file: "lpips-alex.pth",
        url: "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
        sha256: "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        what: "LPIPS 0.1: weights of AlexNet's channels",
        licence: "BSD-2-Clause (Zhang et al.)",
    },
    // torch_fidelity/feature_extractor_inceptionv3.py
    PublicWeights {
        name: "inception",
        file: "weights-inception-2015-12-05-6726825d.pth",
        url: "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        sha256: "6726825d",
        what: "Inception v3 of 5 December 2015, from TensorFlow: FID, sFID, KID, Inception Score",
        licence: "Apache-2.0 (TensorFlow models)",
    },
];

/// Weights that could not be fetched or found.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There are no public weights of this name.
    #[error(
        "`{name}` are no public weights{}; there are {}",
        suggestion.map(|close| format!(" (did you mean `{close}`?)")).unwrap_or_default(),
        PUBLIC_WEIGHTS.map(|weights| weights.name).join(", ")
    )]
    Unknown {
        /// The name.
        name: String,
        /// A name that is close.
        suggestion: Option<&'static str>,
    },
    /// They were not fetched yet.
    #[error(
        "the weights `{name}` ({what}) are not at `{}`; get them with `alitok weights fetch \
         {name}`, or on another machine from {url} and then with --from FILE",
        path.display()
    )]
    Missing {
        /// Their name.
        name: &'static str,
        /// What they are.
        what: &'static str,
        /// Where they would be.
        path: PathBuf,
        /// Where they are published.
        url: &'static str,
    },
    /// The server could not be reached, or the connection broke.
    #[error(
        "cannot fetch {url}: {reason}. What has come so far is kept; the same command goes on from \
         there. Without a connection, get the file elsewhere and give it with --from FILE"
    )]
    Connection {
        /// The address.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The server does not give the file.
    #[error(
        "{url} answers with {status}; get the file elsewhere and give it with --from FILE, or name \
         another address with --url"
    )]
    Status {
        /// The address.
        url: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The file is another one.
    #[error(
        "`{}` is not {file}: its SHA-256 is {got}, {reason}. {}",
        path.display(),
        if *removed { "It was removed; fetch it again" } else { "Nothing was taken over" }
    )]
    Hash {
        /// Where the file was.
        path: PathBuf,
        /// The file that it should be.
        file: &'static str,
        /// Its hash.
        got: String,
        /// What the hash should have been, and why.
        reason: String,
        /// Whether the file is gone.
        removed: bool,
    },
    /// The operating system refused.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where a file is taken from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// Its publisher.
    Publisher,
    /// A mirror.
    Url(&'a str),
    /// A file that somebody brought here.
    File(&'a Path),
}

/// The folder for fetched weights: `weights` below the folder `ALITOK_HOME` if that variable is
/// set, else below `alitok` in the platform's folder for caches. `None` without a home folder.
pub fn cache_folder() -> Option<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = variable("ALITOK_HOME") {
        return Some(home.join("weights"));
    }
    let caches = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_vendor = "apple") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("alitok/weights"))
}

impl PublicWeights {
    /// The weights of this name.
    ///
    /// # Errors
    /// [`FetchError::Unknown`].
    pub fn find(name: &str) -> Result<&'static Self, FetchError> {
        PUBLIC_WEIGHTS.iter().find(|weights| weights.name == name).ok_or_else(|| {
            let closeness = |known: &&Self| strsim::jaro_winkler(known.name, name);
            let close = PUBLIC_WEIGHTS
                .iter()
                .max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
                .filter(|known| closeness(known) > 0.8);
            let suggestion = close.map(|known| known.name);
            FetchError::Unknown { name: name.to_owned(), suggestion }
        })
    }

    /// Where the file is in a folder of weights, fetched or not.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.file)
    }

    /// The file in a folder of weights, after a look at its hash.
    ///
    /// # Errors
    /// [`FetchError::Missing`] if it was not fetched yet, [`FetchError::Hash`] if it has changed.
    pub fn verified(&self, folder: &Path) -> Result<PathBuf, FetchError> {
        let path = self.path(folder);
        if !path.is_file() {
            let Self { name, what, url, .. } = *self;
            return Err(FetchError::Missing { name, what, path, url });
        }
        self.check(folder, &path, &hash_of(&path)?)?;
        Ok(path)
    }

    /// Puts the file into a folder of weights, unless it is there, and remembers its hash. What a
    /// broken download leaves (`FILE.incomplete`) is gone on with the next time.
    ///
    /// `progress` is called with the bytes so far and, where the server says it, of all.
    ///
    /// # Errors
    /// If it cannot be had or written, or is another file than it should be.
    pub fn fetch(
        &self,
        folder: &Path,
        origin: Origin<'_>,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, FetchError> {
        let path = self.path(folder);
        fs::create_dir_all(folder).map_err(at(folder))?;
        let url = match origin {
            Origin::File(given) => {
                self.check(folder, given, &hash_of(given)?)?;
                let mut source = File::open(given).map_err(at(given))?;
                files::write_file(&path, |file| io::copy(&mut source, file).map(drop))
                    .map_err(at(&path))?;
                // Once more: what was written, not what was read before.
                let hash = hash_of(&path)?;
                self.check(folder, &path, &hash)?;
                self.pin(folder, &hash)?;
                return Ok(path);
            }
            _ if path.is_file() => {
                let hash = hash_of(&path)?;
                self.check(folder, &path, &hash)?;
                self.pin(folder, &hash)?;
                return Ok(path);
            }
            Origin::Publisher => self.url,
            Origin::Url(url) => url,
        };
        let part = folder.join(format!("{}.incomplete", self.file));
        download(url, &part, progress)?;
        let hash = hash_of(&part)?;
        if let Err(error) = self.check(folder, &part, &hash) {
            fs::remove_file(&part).map_err(at(&part))?;
            return Err(match error {
                FetchError::Hash { path, file, got, reason, .. } => {
                    FetchError::Hash { path, file, got, reason, removed: true }
                }
                other => other,
            });
        }
        fs::rename(&part, &path).map_err(at(&path))?;
        self.pin(folder, &hash)?;
        Ok(path)
    }

    fn pin_path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.sha256", self.file))
    }

    /// The hash that the first file had.
    fn pinned(&self, folder: &Path) -> Option<String> {
        let text = fs::read_to_string(self.pin_path(folder)).ok()?;
        text.split_whitespace().next().map(str::to_owned)
    }

    /// Remembers a hash, in the format of `sha256sum`.
    fn pin(&self, folder: &Path, hash: &str) -> Result<(), FetchError> {
        if self.pinned(folder).is_some() {
            return Ok(());
        }
        let path = self.pin_path(folder);
        files::write_file(&path, |file| writeln!(file, "{hash}  {}", self.file)).map_err(at(&path))
    }

    fn check(&self, folder: &Path, path: &Path, hash: &str) -> Result<(), FetchError> {
        let reason = if !hash.starts_with(self.sha256) {
            format!("which should begin with {}", self.sha256)
        } else {
            match self.pinned(folder) {
                Some(pinned) if pinned != hash => format!(
                    "and was {pinned} when it was first fetched (written in `{}`)",
                    self.pin_path(folder).display()
                ),
                _ => return Ok(()),
            }
        };
        let (path, got) = (path.to_owned(), hash.to_owned());
        Err(FetchError::Hash { path, file: self.file, got, reason, removed: false })
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |source| FetchError::File { path: path.to_owned(), source }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// [`FetchError::File`] if it cannot be read.
pub fn hash_of(path: &Path) -> Result<String, FetchError> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(at(path))? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Fetches what is missing of a file.
fn download(
    url: &str,
    part: &Path,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), FetchError> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .user_agent("alitok")
        .build()
        .into();
    let broken = |reason: String| FetchError::Connection { url: url.to_owned(), reason };
    let ask = |from: u64| {
        // Bytes as they are: a range of a compressed answer would be something else.
        let request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        let request = match from {
            0 => request,
            from => request.header(header::RANGE, format!("bytes={from}-")),
        };
        request.call().map_err(|error| broken(error.to_string()))
    };
    let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(at(part))?;
    let have = file.metadata().map_err(at(part))?.len();
    let mut response = ask(have)?;
    // The server knows less than there is, or gives another part: from the start.
    let other_part =
        response.status() == StatusCode::PARTIAL_CONTENT && range_start(&response) != Some(have);
    if have > 0 && (response.status() == StatusCode::RANGE_NOT_SATISFIABLE || other_part) {
        response = ask(0)?;
    }
    let mut done = match response.status() {
        StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(have) => have,
        StatusCode::OK => {
            file.set_len(0).map_err(at(part))?;
            0
        }
        status => return Err(FetchError::Status { url: url.to_owned(), status }),
    };
    let total = text(&response, header::CONTENT_LENGTH)
        .and_then(|length| length.parse::<u64>().ok())
        .map(|length| done + length);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    progress(done, total);
    loop {
        let count = body.read(&mut buffer).map_err(|error| broken(error.to_string()))?;
        if count == 0 {
            break;
        }
        file.write_all(&buffer[..count]).map_err(at(part))?;
        done += count as u64;
        progress(done, total);
    }
    file.sync_all().map_err(at(part))?;
    match total {
        Some(total) if done < total => {
            Err(broken(format!("the connection ended after {done} of {total} bytes")))
        }
        _ => Ok(()),
    }
}

fn text(response: &Response<Body>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// The first byte of a partial answer (`bytes 100-199/200`).
fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = text(response, header::CONTENT_RANGE)?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
