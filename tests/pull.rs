//! `model pull` against a server on this machine that serves well, stalls, hangs up, refuses, redirects and lies.

mod token;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grpo_tui::hub::{PullProgress, PullSettings, find_model, pull};
use sha2::{Digest as _, Sha256};

use crate::program::{program, serve};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LISTING: &str = "/api/models/org/small/revision/main?blobs=true";
const WEIGHTS: &str = "model.safetensors";

/// What the server does with one request; afterwards it serves well.
#[derive(Clone, Debug)]
enum Reply {
    /// So many bytes, then it hangs up.
    HangUp(usize),
    /// So many bytes, then nothing.
    Stall(usize),
    Status(u16),
    Redirect(String),
    /// The whole file, whatever part was asked for.
    Whole,
    /// A byte now and then.
    Trickle,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    replies: HashMap<String, Vec<Reply>>,
    /// Path, first byte asked for, and whether a token came along.
    requests: Vec<(String, u64, bool)>,
}

struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        Self {
            address: format!("http://{}", serve(state.clone(), answer)),
            state,
        }
    }

    /// A server of a whole small model.
    fn of_model() -> Self {
        let (server, tiny) = (Self::start(), find_model("tiny").unwrap());
        let names = [
            "config.json",
            WEIGHTS,
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        let files: Vec<(String, Vec<u8>)> = names
            .iter()
            .map(|name| ((*name).to_owned(), tiny.read(name).unwrap().into_owned()))
            .collect();
        server.serve(&files);
        server
    }

    fn serve(&self, files: &[(String, Vec<u8>)]) {
        let siblings: Vec<_> = files
            .iter()
            .map(|(name, bytes)| listed(name, bytes))
            .collect();
        let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        let mut state = self.state.lock().unwrap();
        state.files.insert(LISTING.to_owned(), listing.into_bytes());
        for (name, bytes) in files {
            state
                .files
                .insert(format!("/org/small/resolve/{COMMIT}/{name}"), bytes.clone());
        }
    }

    fn reply(&self, file: &str, replies: &[Reply]) {
        self.state
            .lock()
            .unwrap()
            .replies
            .insert(path_of(file), replies.to_vec());
    }

    /// The first bytes that were asked for of a file, request by request.
    fn ranges(&self, file: &str) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        state
            .requests
            .iter()
            .filter(|request| request.0 == path_of(file))
            .map(|request| request.1)
            .collect()
    }

    fn settings(&self, cache: &Path) -> PullSettings {
        PullSettings {
            endpoint: self.address.clone(),
            token: None,
            cache: cache.to_owned(),
            revision: "main".to_owned(),
            stall: Duration::from_secs(1),
            lowest_rate: 100,
            pause: Duration::from_millis(1),
            certificates: None,
        }
    }
}

fn path_of(file: &str) -> String {
    if file.starts_with('/') {
        file.to_owned()
    } else {
        format!("/org/small/resolve/{COMMIT}/{file}")
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What git calls a file's bytes.
fn git_hash(bytes: &[u8]) -> String {
    let hash = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()))
        .chain_update(bytes)
        .finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As the hub lists a file: weights by their SHA-256, the others by git's hash.
fn listed(name: &str, bytes: &[u8]) -> serde_json::Value {
    let mut entry =
        serde_json::json!({ "rfilename": name, "size": bytes.len(), "blobId": git_hash(bytes) });
    if name.ends_with(".safetensors") {
        entry["lfs"] =
            serde_json::json!({ "sha256": hex(bytes), "size": bytes.len(), "pointerSize": 134 });
    }
    entry
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_lowercase())
        .collect();
    let header = |name: &str| {
        headers
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
    };
    let start: u64 = header("range")
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let (file, reply) = {
        let mut state = state.lock().unwrap();
        state
            .requests
            .push((path.clone(), start, header("authorization").is_some()));
        let reply = state
            .replies
            .get_mut(&path)
            .filter(|replies| !replies.is_empty())
            .map(|replies| replies.remove(0));
        (state.files.get(&path).cloned(), reply)
    };
    let mut send = |head: String, body: &[u8]| {
        // The client may have gone.
        let _ =
            stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
        let _ = stream.flush();
    };
    let Some(file) = file else {
        return send("404 Not Found\r\nContent-Length: 0".to_owned(), b"");
    };
    let head = match (start, &reply) {
        (0, _) | (_, Some(Reply::Whole)) => format!("200 OK\r\nContent-Length: {}", file.len()),
        _ => {
            let (end, total) = (file.len() - 1, file.len());
            format!(
                "206 Partial Content\r\nContent-Range: bytes {start}-{end}/{total}\r\nContent-Length: {}",
                total as u64 - start
            )
        }
    };
    let body = &file[start as usize..];
    match reply {
        None => send(head, body),
        Some(Reply::Whole) => send(head, &file),
        Some(Reply::HangUp(bytes)) => send(head, &body[..bytes]),
        Some(Reply::Stall(bytes)) => {
            send(head, &body[..bytes]);
            // Longer than the client waits; it is the client that ends this.
            let _ = std::io::Read::read(&mut stream, &mut [0; 1]);
        }
        Some(Reply::Trickle) => {
            send(head, b"");
            // Until the client has had enough.
            while stream.write_all(&[0]).and_then(|()| stream.flush()).is_ok() {}
        }
        Some(Reply::Status(status)) => send(format!("{status} No\r\nContent-Length: 0"), b""),
        Some(Reply::Redirect(to)) => send(
            format!("302 Found\r\nLocation: {to}\r\nContent-Length: 0"),
            b"",
        ),
    }
}

fn pulled(settings: &PullSettings) -> Result<(PathBuf, Vec<PullProgress>), String> {
    let mut reports = Vec::new();
    let folder = pull("org/small", settings, &mut |progress| {
        reports.push(progress)
    })
    .map_err(|error| error.to_string())?;
    Ok((folder, reports))
}

fn blobs(cache: &Path) -> Vec<String> {
    let folder = cache.join("models--org--small/blobs");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_lies_in_the_cache_as_other_programs_put_it_there() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    let (folder, reports) = pulled(&server.settings(cache.path())).unwrap();
    let repository = cache.path().join("models--org--small");
    assert_eq!(folder, repository.join("snapshots").join(COMMIT));
    assert_eq!(
        std::fs::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    let tiny = find_model("tiny").unwrap();
    for name in [
        "config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        assert_eq!(
            std::fs::read(folder.join(name)).unwrap(),
            tiny.read(name).unwrap().as_ref(),
            "{name}"
        );
    }
    assert_eq!(
        std::fs::read_link(folder.join(WEIGHTS)).unwrap(),
        Path::new("../../blobs").join(hex(&tiny.read(WEIGHTS).unwrap()))
    );
    let last = reports.last().unwrap();
    assert!(
        last.done_bytes == last.total_bytes
            && reports.is_sorted_by_key(|progress| progress.done_bytes),
        "{reports:?}"
    );
    // What is there is not fetched again.
    pulled(&server.settings(cache.path())).unwrap();
    assert_eq!(server.ranges(WEIGHTS), [0]);
    assert_eq!(
        server
            .state
            .lock()
            .unwrap()
            .requests
            .iter()
            .filter(|request| request.2)
            .count(),
        0,
        "no token, no header"
    );
}

#[test]
fn a_server_that_hangs_up_or_stalls_is_asked_for_the_rest() {
    for replies in [
        [Reply::HangUp(1000), Reply::HangUp(500)],
        [Reply::Stall(1000), Reply::Stall(500)],
    ] {
        let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
        server.reply(WEIGHTS, &replies);
        pulled(&server.settings(cache.path())).unwrap();
        assert_eq!(server.ranges(WEIGHTS), [0, 1000, 1500], "{replies:?}");
    }
}

#[test]
fn a_later_command_goes_on_where_the_first_gave_up() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    server.reply(
        WEIGHTS,
        &[vec![Reply::HangUp(2000)], vec![Reply::HangUp(0); 20]].concat(),
    );
    let message = pulled(&server.settings(cache.path())).unwrap_err();
    assert!(
        message.contains(WEIGHTS) && message.contains("run the same command again to continue"),
        "{message}"
    );
    assert!(
        server
            .ranges(WEIGHTS)
            .iter()
            .skip(1)
            .all(|&start| start == 2000),
        "{:?}",
        server.ranges(WEIGHTS)
    );
    assert!(
        !cache.path().join("models--org--small/refs").exists(),
        "half a model is none"
    );
    server.reply(WEIGHTS, &[]);
    let before = server.ranges(WEIGHTS).len();
    pulled(&server.settings(cache.path())).unwrap();
    assert_eq!(server.ranges(WEIGHTS)[before..], [2000]);
    assert!(
        blobs(cache.path())
            .iter()
            .all(|name| !name.ends_with(".incomplete"))
    );
}

#[test]
fn a_server_that_cannot_go_on_in_the_middle_begins_anew() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    server.reply(WEIGHTS, &[Reply::HangUp(1000), Reply::Whole]);
    let (folder, _) = pulled(&server.settings(cache.path())).unwrap();
    assert_eq!(
        std::fs::read(folder.join(WEIGHTS)).unwrap(),
        find_model("tiny").unwrap().read(WEIGHTS).unwrap().as_ref()
    );
}

#[test]
fn a_wrong_checksum_is_refused_and_the_file_removed() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    let path = path_of(WEIGHTS);
    let good = server.state.lock().unwrap().files[&path].clone();
    server.state.lock().unwrap().files.get_mut(&path).unwrap()[5000] ^= 1;
    let message = pulled(&server.settings(cache.path())).unwrap_err();
    for part in [WEIGHTS, "its SHA-256 is", &hex(&good), "it was removed"] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    assert!(
        !blobs(cache.path())
            .iter()
            .any(|name| name.starts_with(&hex(&good)))
    );
    server.state.lock().unwrap().files.insert(path, good);
    pulled(&server.settings(cache.path())).unwrap();
}

#[test]
fn a_file_that_git_names_is_checked_by_that_name() {
    // `printf 'hello\n' | git hash-object --stdin`
    assert_eq!(
        git_hash(b"hello\n"),
        "ce013625030ba8dba906f756967f9e9ca394464a"
    );
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    let path = path_of("tokenizer.json");
    let good = server.state.lock().unwrap().files[&path].clone();
    server.state.lock().unwrap().files.get_mut(&path).unwrap()[100] ^= 1;
    let message = pulled(&server.settings(cache.path())).unwrap_err();
    for part in [
        "tokenizer.json",
        "its git hash (SHA-1) is",
        &git_hash(&good),
        "it was removed",
    ] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    assert!(
        server.ranges(WEIGHTS).is_empty(),
        "what is small comes first"
    );
    server
        .state
        .lock()
        .unwrap()
        .files
        .insert(path, good.clone());
    let (folder, _) = pulled(&server.settings(cache.path())).unwrap();
    assert_eq!(std::fs::read(folder.join("tokenizer.json")).unwrap(), good);
}

#[test]
fn what_is_in_the_cache_counts_by_its_hash_and_not_by_its_length() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    let (folder, _) = pulled(&server.settings(cache.path())).unwrap();
    for name in ["config.json", WEIGHTS] {
        let path = folder.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut other = good.clone();
        *other.last_mut().unwrap() ^= 1;
        std::fs::write(&path, other).unwrap();
        pulled(&server.settings(cache.path())).unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap() == good, server.ranges(name)),
            (true, vec![0, 0]),
            "{name}"
        );
    }
}

#[test]
fn a_repository_that_is_no_model_costs_nothing() {
    let check = |files: &[&str], expected: &str| {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        server.serve(
            &files
                .iter()
                .map(|name| ((*name).to_owned(), b"x".to_vec()))
                .collect::<Vec<_>>(),
        );
        let message = pulled(&server.settings(cache.path())).unwrap_err();
        assert!(
            message.contains("org/small") && message.contains(expected),
            "{message:?} lacks {expected:?}"
        );
        assert_eq!(
            (
                server.state.lock().unwrap().requests.len(),
                blobs(cache.path()).len()
            ),
            (1, 0),
            "only the list was asked for"
        );
    };
    check(&["README.md"], "no config.json");
    check(&["tokenizer.json", WEIGHTS], "no config.json");
    check(
        &["config.json", "tokenizer.model", WEIGHTS],
        "no tokenizer.json",
    );
    check(
        &["config.json", "tokenizer.json", "pytorch_model.bin"],
        "no safetensors weights",
    );
}

#[test]
fn a_server_that_sends_a_byte_now_and_then_is_given_up() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    server.reply(WEIGHTS, &vec![Reply::Trickle; 9]);
    // As fast as it can, and too slow by the rate that is asked for.
    let settings = PullSettings {
        stall: Duration::from_millis(50),
        lowest_rate: 1 << 50,
        ..server.settings(cache.path())
    };
    let message = pulled(&settings).unwrap_err();
    assert!(
        message.contains("bytes per second, fewer than 1125899906842624")
            && message.contains("run the same command again"),
        "{message}"
    );
    assert_eq!(server.ranges(WEIGHTS).len(), 5);
}

#[test]
fn what_the_server_refuses_is_said_with_the_remedy() {
    let check = |file: &str, status: u16, token: Option<&str>, expected: &str| {
        let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
        server.reply(file, &vec![Reply::Status(status); 9]);
        let settings = PullSettings {
            token: token.map(str::to_owned),
            ..server.settings(cache.path())
        };
        let message = pulled(&settings).unwrap_err();
        assert!(
            message.contains(expected) && message.contains(&status.to_string()),
            "{message:?} lacks {expected:?}"
        );
        assert!(!message.contains("hf_secret"), "{message}");
        assert_eq!(
            server.ranges(file).len(),
            if status < 500 || file == LISTING {
                1
            } else {
                5
            },
            "{message}"
        );
    };
    check(LISTING, 404, None, "check the name");
    check(LISTING, 401, None, "set HF_TOKEN");
    check(
        LISTING,
        403,
        Some("hf_secret"),
        "the token in HF_TOKEN may not read this model",
    );
    check(LISTING, 503, None, "try again later");
    check(WEIGHTS, 403, None, "accept its licence");
    check(WEIGHTS, 500, None, "try again later");
    // Nobody listens there.
    let cache = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = PullSettings {
        endpoint: format!("http://{closed}"),
        ..Server::start().settings(cache.path())
    };
    let message = pulled(&settings).unwrap_err();
    assert!(
        message.contains("HF_ENDPOINT names another server"),
        "{message}"
    );
    let nameless = pull("../secret", &settings, &mut |_| ())
        .unwrap_err()
        .to_string();
    assert!(nameless.contains("is not a model name"), "{nameless}");
}

#[test]
fn a_model_that_is_not_computed_here_costs_no_weights() {
    let (server, cache) = (Server::of_model(), tempfile::tempdir().unwrap());
    let other = br#"{"architectures":["MambaForCausalLM"],"model_type":"mamba"}"#.to_vec();
    server.serve(&[
        ("config.json".to_owned(), other),
        ("tokenizer.json".to_owned(), b"{}".to_vec()),
        (WEIGHTS.to_owned(), b"large".to_vec()),
    ]);
    let message = pulled(&server.settings(cache.path())).unwrap_err();
    assert!(
        message.contains("org/small/config.json: the architecture `MambaForCausalLM`"),
        "{message}"
    );
    assert!(server.ranges(WEIGHTS).is_empty());
}

#[cfg(feature = "engine")]
#[test]
fn the_command_fetches_and_the_name_then_works() {
    let (server, home) = (Server::of_model(), tempfile::tempdir().unwrap());
    let call = |arguments: &[&str]| {
        program(home.path(), arguments)
            .env("HF_ENDPOINT", &server.address)
            .env("HF_TOKEN", "hf_secret")
            .output()
            .unwrap()
    };
    let missing = call(&["model", "inspect", "org/small"]);
    assert!(
        String::from_utf8_lossy(&missing.stderr)
            .contains("to fetch it, run: grpo-tui model pull org/small")
    );
    assert!(
        server.state.lock().unwrap().requests.is_empty(),
        "nothing is fetched unasked"
    );
    let output = call(&["model", "pull", "org/small", "--json"]);
    let output_text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && !output_text.contains("hf_secret"),
        "{output_text}"
    );
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["folder"].as_str().unwrap().ends_with(COMMIT));
    assert!(call(&["model", "inspect", "org/small"]).status.success());
    let refused = call(&["model", "pull", "org/other"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("answered 404"));
}
