//! A push endpoint as Loki has it: it unpacks what it takes, and refuses, stalls and breaks off when it is told to.
//!
//! HTTP/1.1 on loopback, without any of the code that netsonde sends with.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loki_api::logproto::PushRequest;
use prost::Message as _;

use crate::{Running, agent, running};

/// What to do with a push.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Take it.
    Take,
    /// Refuse it with this status, these headers and this body.
    Say(u16, Vec<(&'static str, String)>, &'static str),
    /// Never answer.
    Stall,
    /// Break off before it is taken.
    Reset,
    /// Take it, and break off before saying so.
    TakeAndReset,
}

/// A push that came in.
#[derive(Debug, Clone)]
pub struct Push {
    /// The first line of the request.
    pub line: String,
    /// When it was complete.
    pub at: Instant,
    /// How many entries it holds.
    pub entries: usize,
    headers: Vec<(String, String)>,
}

impl Push {
    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An entry that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The labels of its stream.
    pub labels: String,
    /// Nanoseconds since 1970.
    pub time_ns: i128,
    /// Its line.
    pub line: String,
}

#[derive(Default)]
struct State {
    next: VecDeque<Answer>,
    always: Option<Answer>,
    most_entries: Option<usize>,
    pushes: Vec<Push>,
    entries: Vec<Entry>,
    open: Vec<Weak<TcpStream>>,
    down: bool,
}

/// A running endpoint. It goes down when it is dropped, in the middle of whatever it does.
pub struct Loki {
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

impl Loki {
    /// On a port of its own.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// At an address where one was before.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener =
            TcpListener::bind(address).unwrap_or_else(|e| panic!("cannot listen on {address}: {e}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a listener need not block");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let front = std::thread::spawn(move || {
            while !lock(&shared).down {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                stream.set_nonblocking(false).expect("a stream may block");
                // Only the thread holds it, so that it is closed when the thread says so.
                let stream = Arc::new(stream);
                lock(&shared).open.push(Arc::downgrade(&stream));
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    serve(&shared, BufReader::new(&*stream), &*stream, || reset(&stream));
                });
            }
        });
        Self { address, state, front: Some(front), tls: None }
    }

    /// With TLS, by `openssl s_server`, one connection at a time.
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let address = agent::free_address();
        let mut command = running::mortal("openssl");
        command.args(["s_server", "-quiet", "-accept", &address.to_string(), "-cert"]).arg(certificate);
        command.arg("-key").arg(key).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Running::start(&mut command);
        let input = process.child().stdin.take().expect("its input is a pipe");
        let output = BufReader::new(process.child().stdout.take().expect("its output is a pipe"));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let front = std::thread::spawn(move || serve(&shared, output, input, || {}));
        Self { address, state, front: Some(front), tls: Some(process) }
    }

    /// The address of its push endpoint.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/loki/api/v1/push", self.address)
    }

    /// What to do with the next push for which nothing is planned yet.
    pub fn then(&self, answer: Answer) {
        lock(&self.state).next.push_back(answer);
    }

    /// What to do with every push for which nothing is planned.
    pub fn always(&self, answer: Answer) {
        lock(&self.state).always = Some(answer);
    }

    /// A push with more entries is too large.
    pub fn at_most(&self, entries: usize) {
        lock(&self.state).most_entries = Some(entries);
    }

    /// Every push that came in, in order.
    pub fn pushes(&self) -> Vec<Push> {
        lock(&self.state).pushes.clone()
    }

    /// Every entry that was taken, in order.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.state).entries.clone()
    }

    /// How many connections are being served. When none is, whatever was sent has been answered.
    pub fn connections(&self) -> usize {
        lock(&self.state).open.iter().filter(|stream| stream.strong_count() > 0).count()
    }

    /// The numbers of the events that were taken, in order.
    pub fn numbers(&self) -> Vec<u64> {
        lock(&self.state).entries.iter().map(|entry| crate::records::number(&entry.line)).collect()
    }
}

impl Drop for Loki {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.down = true;
        for stream in state.open.drain(..).filter_map(|stream| stream.upgrade()) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        // Its threads end with it.
        self.tls = None;
        if let Some(front) = self.front.take() {
            let _ = front.join();
        }
    }
}

/// The end of the connection will be a reset.
fn reset(stream: &TcpStream) {
    // Where this fails, it is an orderly end in the middle of a request: no answer either.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Answers one request after the other until the connection ends.
fn serve(state: &Mutex<State>, mut reader: impl BufRead, mut writer: impl Write, reset: impl Fn()) {
    while let Some((line, headers, body)) = request(&mut reader) {
        let entries = unpack(&body);
        let answer = {
            let mut state = lock(state);
            if state.down {
                return;
            }
            state.pushes.push(Push { line, at: Instant::now(), entries: entries.len(), headers });
            let too_large = state.most_entries.is_some_and(|most| entries.len() > most);
            let told = if too_large {
                Answer::Say(413, Vec::new(), "request body too large")
            } else {
                state.next.pop_front().or_else(|| state.always.clone()).unwrap_or(Answer::Take)
            };
            if matches!(told, Answer::Take | Answer::TakeAndReset) {
                state.entries.extend(entries);
            }
            told
        };
        let text = match answer {
            Answer::Take => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Answer::Say(status, headers, body) => {
                let mut text = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    let _ = write!(text, "{name}: {value}\r\n");
                }
                text + "\r\n" + body
            }
            Answer::Stall => {
                while !lock(state).down {
                    std::thread::sleep(Duration::from_millis(5));
                }
                return;
            }
            Answer::Reset | Answer::TakeAndReset => return reset(),
        };
        if writer.write_all(text.as_bytes()).and_then(|()| writer.flush()).is_err() {
            return;
        }
    }
}

type Request = (String, Vec<(String, String)>, Vec<u8>);

/// The next request; `None` where the connection ends.
fn request(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let header = |line: &String| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    let headers: Vec<_> = lines.iter().skip(1).filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.parse().ok()).expect("a push says how long it is");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((lines.first()?.clone(), headers, body))
}

fn unpack(body: &[u8]) -> Vec<Entry> {
    let plain = snap::raw::Decoder::new().decompress_vec(body);
    let plain = plain.unwrap_or_else(|e| panic!("the body of a push is no raw block of snappy: {e}"));
    let push = PushRequest::decode(plain.as_slice()).unwrap_or_else(|e| panic!("the body is no push: {e}"));
    let mut entries = Vec::new();
    for stream in push.streams {
        for entry in stream.entries {
            let time = entry.timestamp.unwrap_or_else(|| panic!("an entry without a time: {}", entry.line));
            let time_ns = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
            entries.push(Entry { labels: stream.labels.clone(), time_ns, line: entry.line });
        }
    }
    entries
}
