//! gRPC as a client needs it for a runtime's socket: calls with one answer and calls with a stream of them.
//!
//! It runs on tokio; the connection is a task that ends when the last [`Channel`] and [`Stream`] are dropped. It never
//! connects again by itself: a call over a lost connection fails, and the caller makes a new channel.

use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, header};
use prost::Message;
use tokio::net::UnixStream;

/// No answer may be longer: kubelet has the same bound.
const MOST_BYTES: usize = 16 << 20;
/// How much may be on its way unread; a list of a few hundred pods fits.
const WINDOW: u32 = 1 << 20;
/// Length of the head of a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket, or we may not use it.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] h2::Error),
    /// The runtime answered with an error.
    #[error("{message} ({code:?})")]
    Refused {
        /// Its kind.
        code: Code,
        /// What it said.
        message: String,
    },
    /// The runtime did not answer in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// What came was no answer to the question.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// The kinds of refusal that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// There is no such thing.
    NotFound,
    /// The runtime does not have this call.
    Unimplemented,
    /// Any other, by its number.
    Other(u16),
}

impl Code {
    fn from_number(number: u16) -> Self {
        match number {
            5 => Self::NotFound,
            12 => Self::Unimplemented,
            other => Self::Other(other),
        }
    }
}

/// A connection to a runtime. Clones share it.
#[derive(Debug, Clone)]
pub struct Channel(SendRequest<Bytes>);

impl Channel {
    /// Connects to the socket at `path`, within `at_most`.
    pub async fn connect(path: &Path, at_most: Duration) -> Result<Self, Error> {
        within(at_most, async {
            let socket = UnixStream::connect(path).await?;
            let (channel, connection) = h2::client::Builder::new()
                .enable_push(false)
                .initial_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .handshake(socket)
                .await?;
            tokio::spawn(async move {
                // Whoever waits for an answer is told of the end too.
                let _ = connection.await;
            });
            Ok(Self(channel))
        })
        .await
    }

    /// Calls `method`, such as `/runtime.v1.RuntimeService/Version`, and gives its only answer.
    pub async fn call<A>(&self, method: &str, question: &impl Message, at_most: Duration) -> Result<A, Error>
    where
        A: Message + Default,
    {
        within(at_most, async {
            let mut answers: Stream<A> = self.stream(method, question).await?;
            let answer = answers.next().await?;
            let answer = answer.ok_or_else(|| Error::Unreadable("there is none".into()))?;
            match answers.next().await? {
                None => Ok(answer),
                Some(_) => Err(Error::Unreadable("there is more than one".into())),
            }
        })
        .await
    }

    /// Calls `method` and gives its answers as they come, without a limit in time.
    pub async fn stream<A>(&self, method: &str, question: &impl Message) -> Result<Stream<A>, Error> {
        let mut ready = self.0.clone().ready().await?;
        let request = Request::post(format!("http://localhost{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, concat!("netsonde/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(|e| Error::Unreadable(format!("{method} is no method: {e}")))?;
        let (head, mut body) = ready.send_request(request, false)?;
        body.send_data(frame(question), true)?;
        Ok(Stream { head: Some(head), body: None, bytes: BytesMut::new(), answer: PhantomData })
    }
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(HEAD + length);
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(length).expect("a question is short").to_be_bytes());
    message.encode(&mut frame).expect("a vector grows");
    frame.into()
}

/// The answers of a call. Dropping it ends the call.
#[derive(Debug)]
pub struct Stream<A> {
    /// A server may send its head together with its first answer, so it is not waited for before.
    head: Option<ResponseFuture>,
    body: Option<RecvStream>,
    bytes: BytesMut,
    answer: PhantomData<fn() -> A>,
}

impl<A: Message + Default> Stream<A> {
    /// Waits for the next answer; `None` when the call ended well. Whoever stops waiting loses nothing.
    pub async fn next(&mut self) -> Result<Option<A>, Error> {
        if let Some(head) = &mut self.head {
            let response = head.await?;
            self.head = None;
            if !response.status().is_success() {
                return Err(Error::Unreadable(format!("HTTP status {}", response.status())));
            }
            if response.headers().contains_key(STATUS) {
                verdict(response.headers())?;
            }
            self.body = Some(response.into_body());
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            if let Some(answer) = take(&mut self.bytes)? {
                return Ok(Some(answer));
            }
            let Some(part) = body.data().await else { break };
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            self.bytes.extend_from_slice(&part);
        }
        let end = body.trailers().await?;
        self.body = None;
        let cut = !std::mem::take(&mut self.bytes).is_empty();
        if let Some(end) = end {
            verdict(&end)?;
        }
        if cut {
            return Err(Error::Unreadable("it ends in the middle".into()));
        }
        Ok(None)
    }
}

/// Takes a whole message from the front.
fn take<A: Message + Default>(bytes: &mut BytesMut) -> Result<Option<A>, Error> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 {
        return Err(Error::Unreadable("it is compressed, which was not asked for".into()));
    }
    if length > MOST_BYTES {
        return Err(Error::Unreadable(format!("{length} bytes are more than {MOST_BYTES}")));
    }
    if rest.len() < length {
        return Ok(None);
    }
    bytes.advance(HEAD);
    let message = bytes.split_to(length).freeze();
    A::decode(message).map(Some).map_err(|e| Error::Unreadable(e.to_string()))
}

const STATUS: &str = "grpc-status";

/// What the server says of the call at its end.
fn verdict(headers: &HeaderMap) -> Result<(), Error> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text(STATUS).and_then(|status| status.parse().ok()) {
        None | Some(0) => Ok(()),
        Some(number) => Err(Error::Refused {
            code: Code::from_number(number),
            message: text("grpc-message").map(unescape).unwrap_or_default(),
        }),
    }
}

/// `grpc-message` is percent-encoded.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(byte) = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn within<T>(at_most: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(at_most, work).await.unwrap_or(Err(Error::Late(at_most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::VersionResponse;

    fn version() -> VersionResponse {
        VersionResponse { runtime_name: "containerd".into(), ..VersionResponse::default() }
    }

    #[test]
    fn a_message_is_taken_once_it_is_whole() {
        let whole = frame(&version());
        for cut in 0..whole.len() {
            let mut bytes = BytesMut::from(&whole[..cut]);
            assert!(take::<VersionResponse>(&mut bytes).expect("readable").is_none(), "{cut}");
            assert_eq!(bytes.len(), cut);
        }
        let mut two = BytesMut::from(&[&whole[..], &whole[..], &whole[..3]].concat()[..]);
        for _ in 0..2 {
            assert_eq!(take(&mut two).expect("readable"), Some(version()));
        }
        assert_eq!(take::<VersionResponse>(&mut two).expect("readable"), None);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (bytes, why) in [
            (&[1, 0, 0, 0, 0][..], "compressed"),
            (&[0, 255, 0, 0, 0], "more than"),
            (&[0, 0, 0, 0, 1, 255], "varint"),
        ] {
            let error = take::<VersionResponse>(&mut BytesMut::from(bytes)).expect_err("refused").to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_refusal_says_its_kind_and_reason() {
        let mut headers = HeaderMap::new();
        verdict(&headers).expect("a call without a status ended well");
        headers.insert(STATUS, "0".parse().expect("a header"));
        verdict(&headers).expect("0 is success");
        headers.insert(STATUS, "12".parse().expect("a header"));
        headers.insert("grpc-message", "unknown%20method 100%".parse().expect("a header"));
        let Err(Error::Refused { code, message }) = verdict(&headers) else { panic!("not refused") };
        assert_eq!((code, &*message), (Code::Unimplemented, "unknown method 100%"));
    }
}
