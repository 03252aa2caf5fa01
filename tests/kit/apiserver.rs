//! A Kubernetes API server as far as a client of its pods sees it: pages of a list, watches with bookmarks, versions that
//! are too old, tokens. It holds the pods that a test gives it.
//!
//! HTTP/1.1 on loopback, without any of the code that netsonde asks with.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Running, agent, running};

/// How often a watch looks for what is new.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Default)]
struct State {
    token: String,
    pods: BTreeMap<String, Value>,
    version: u64,
    /// What happened, with the version that it made.
    log: Vec<(u64, Value)>,
    /// What came before is forgotten.
    oldest: u64,
    /// Pods on a page, at most.
    page: usize,
    refuse: Option<(u16, &'static str)>,
    requests: Vec<String>,
    watches: usize,
    /// Connections of an earlier epoch are cut.
    epoch: u64,
    down: bool,
}

/// A running API server. It goes down when it is dropped.
pub struct ApiServer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    front: Option<JoinHandle<()>>,
    /// The process that speaks TLS.
    tls: Option<Running>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running pod with these addresses, on some node; `more` is merged into it.
pub fn pod(name: &str, addresses: &[&str], more: &Value) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let mut pod = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": "other", "containers": [{"name": "main", "image": "example"}]},
        "status": {"phase": "Running", "podIP": addresses.first(), "podIPs": ips, "conditions": []},
    });
    merge(&mut pod, more);
    pod
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// Whether the only field selector that is understood lets a pod through.
fn is_active(pod: &Value) -> bool {
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

impl ApiServer {
    /// On a port of its own; who asks must show this token.
    pub fn start(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a listener need not block");
        let state = Self::state(token);
        let shared = Arc::clone(&state);
        let front = std::thread::spawn(move || {
            while !lock(&shared).down {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(LOOK);
                    continue;
                };
                stream.set_nonblocking(false).expect("a stream may block");
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let (reader, stream) = (stream.try_clone().expect("a descriptor"), stream);
                    serve(&shared, BufReader::new(reader), &stream);
                    let _ = TcpStream::shutdown(&stream, std::net::Shutdown::Both);
                });
            }
        });
        Self { address, state, front: Some(front), tls: None }
    }

    /// With TLS, by `openssl s_server`, one connection at a time.
    pub fn start_tls(token: &str, certificate: &Path, key: &Path) -> Self {
        let address = agent::free_address();
        let mut command = running::mortal("openssl");
        command.args(["s_server", "-quiet", "-accept", &address.to_string(), "-cert"]).arg(certificate);
        command.arg("-key").arg(key).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Running::start(&mut command);
        let input = process.child().stdin.take().expect("its input is a pipe");
        let output = BufReader::new(process.child().stdout.take().expect("its output is a pipe"));
        let state = Self::state(token);
        let shared = Arc::clone(&state);
        let front = std::thread::spawn(move || serve(&shared, output, input));
        Self { address, state, front: Some(front), tls: Some(process) }
    }

    fn state(token: &str) -> Arc<Mutex<State>> {
        Arc::new(Mutex::new(State { token: token.into(), version: 100, page: 500, ..State::default() }))
    }

    /// What a client is configured with.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Adds a pod, or changes it.
    pub fn put(&self, mut pod: Value) {
        let mut state = lock(&self.state);
        state.version += 1;
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let was = state.pods.insert(uid, pod.clone()).is_some_and(|was| is_active(&was));
        let kind = match (was, is_active(&pod)) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        state.tell(kind, &pod);
    }

    /// Deletes the pod of this name.
    pub fn delete(&self, name: &str) {
        let mut state = lock(&self.state);
        let mut pod = state.pods.remove(&format!("uid-{name}")).unwrap_or_else(|| panic!("no pod {name}"));
        state.version += 1;
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.tell("DELETED", &pod);
    }

    /// Tells that nothing happened until now.
    pub fn bookmark(&self) {
        let mut state = lock(&self.state);
        state.version += 1;
        let object = json!({"kind": "Pod", "metadata": {"resourceVersion": state.version.to_string()}});
        state.tell("BOOKMARK", &object);
    }

    /// Sends a line to every watch as it is.
    pub fn say(&self, event: Value) {
        let mut state = lock(&self.state);
        state.version += 1;
        let version = state.version;
        state.log.push((version, event));
    }

    /// Forgets what happened: who watches from an earlier version is told to list again.
    pub fn compact(&self) {
        let mut state = lock(&self.state);
        state.version += 1;
        state.oldest = state.version;
        state.log.clear();
    }

    /// Cuts every connection in the middle of whatever it does.
    pub fn cut(&self) {
        lock(&self.state).epoch += 1;
    }

    /// Answers everything with this status and message from now on, or as it should; open watches go on.
    pub fn refuse(&self, how: Option<(u16, &'static str)>) {
        lock(&self.state).refuse = how;
    }

    /// Puts so many pods on a page, at most.
    pub fn pages_of(&self, pods: usize) {
        lock(&self.state).page = pods;
    }

    /// The paths that were asked for, with their queries.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state).requests.clone()
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        lock(&self.state).watches
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        lock(&self.state).down = true;
        self.tls = None;
        if let Some(front) = self.front.take() {
            let _ = front.join();
        }
    }
}

impl State {
    fn tell(&mut self, kind: &str, object: &Value) {
        let version = self.version;
        self.log.push((version, json!({"type": kind, "object": object})));
    }
}

/// Answers one request after the other until the connection ends.
fn serve(state: &Mutex<State>, mut reader: impl BufRead, mut writer: impl Write) {
    let epoch = lock(state).epoch;
    while let Some((path, token)) = request(&mut reader) {
        let (answer, from) = {
            let mut state = lock(state);
            state.requests.push(path.clone());
            answer(&state, &path, token.as_deref())
        };
        let sent = match from {
            Some(from) => watch(state, epoch, from, &mut writer),
            None => writer.write_all(answer.as_bytes()).and_then(|()| writer.flush()),
        };
        if sent.is_err() || lock(state).down {
            return;
        }
    }
}

/// The path of the next request and its token; `None` where the connection ends.
fn request(reader: &mut impl BufRead) -> Option<(String, Option<String>)> {
    let (mut path, mut token) = (None, None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some((path?, token));
        }
        if path.is_none() {
            path = line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        } else if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            token = value.strip_prefix("Bearer ").map(str::to_owned);
        }
    }
}

/// The whole answer, or from which version on to watch.
fn answer(state: &State, path: &str, token: Option<&str>) -> (String, Option<u64>) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    if token != Some(&*state.token) {
        return (failure(401, "Unauthorized"), None);
    }
    if let Some((code, message)) = state.refuse {
        return (failure(code, message), None);
    }
    if path != "/api/v1/pods" {
        return (failure(403, "pods is all that may be asked for"), None);
    }
    assert_eq!(
        query.get("fieldSelector").copied(),
        Some("status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed"),
        "the only field selector that this server understands"
    );
    if query.get("watch") == Some(&"1") {
        let from = query["resourceVersion"].parse().expect("a version of this server's");
        return if from < state.oldest {
            (failure(410, "too old"), None)
        } else {
            (String::new(), Some(from))
        };
    }
    let limit: usize = query.get("limit").map_or(usize::MAX, |limit| limit.parse().expect("a number"));
    let start: usize = query.get("continue").map_or(0, |from| from.parse().expect("one of this server's"));
    let all: Vec<&Value> = state.pods.values().filter(|pod| is_active(pod)).collect();
    let end = all.len().min(start + limit.min(state.page));
    let next = if end < all.len() { end.to_string() } else { String::new() };
    let meta = json!({"resourceVersion": state.version.to_string(), "continue": next});
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": all[start..end]});
    (response(200, &list), None)
}

fn failure(code: u16, message: &str) -> String {
    response(code, &json!({"kind": "Status", "status": "Failure", "message": message, "code": code}))
}

fn response(code: u16, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {code} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Tells what happens until the connection is cut.
fn watch(state: &Mutex<State>, epoch: u64, mut from: u64, writer: &mut impl Write) -> std::io::Result<()> {
    writer.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    writer.flush()?;
    lock(state).watches += 1;
    let ended = loop {
        let (news, over) = {
            let state = lock(state);
            let news: Vec<_> = state.log.iter().filter(|(version, _)| *version > from).cloned().collect();
            (news, state.down || state.epoch > epoch)
        };
        if over {
            break Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let mut lines = String::new();
        for (version, event) in news {
            lines.push_str(&event.to_string());
            lines.push('\n');
            from = version;
        }
        // In two parts, since lines need not come whole.
        let (one, two) = lines.split_at(lines.len() / 2);
        let sent = [one, two].iter().filter(|part| !part.is_empty()).try_for_each(|part| {
            write!(writer, "{:x}\r\n{part}\r\n", part.len()).and_then(|()| writer.flush())
        });
        if sent.is_err() {
            break sent;
        }
        std::thread::sleep(LOOK);
    };
    lock(state).watches -= 1;
    ended
}
