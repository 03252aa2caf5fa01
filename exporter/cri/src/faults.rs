//! Tests of the client against a server that refuses, keeps silent, breaks off and splits its answers.

use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use tokio::net::UnixListener;

use crate::v1::{ContainerEventResponse, VersionResponse};
use crate::{Channel, Code, Error};

const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), &bytes].concat()
}

fn status(number: &str, message: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", number.parse().expect("a header"));
    headers.insert("grpc-message", message.parse().expect("a header"));
    headers
}

async fn answer(path: &str, mut respond: SendResponse<Bytes>) {
    let head = || Response::new(());
    match path.rsplit('/').next().unwrap_or_default() {
        "Version" => {
            let mut body = respond.send_response(head(), false).expect("open");
            let runtime_name = "test".to_owned();
            let frame = framed(&VersionResponse { runtime_name, ..VersionResponse::default() });
            // Byte by byte: a frame of HTTP/2 is not a message of gRPC.
            for byte in frame {
                body.send_data(vec![byte].into(), false).expect("open");
            }
            body.send_trailers(status("0", "")).expect("open");
        }
        "GetContainerEvents" => {
            let mut body = respond.send_response(head(), false).expect("open");
            let event = |id: &str| framed(&ContainerEventResponse { container_id: id.into() });
            tokio::time::sleep(SOON * 2).await;
            body.send_data([event("a"), event("b")].concat().into(), false).expect("open");
            body.send_trailers(status("14", "going%20away")).expect("open");
        }
        "Subscribe" => {
            let mut head = head();
            *head.headers_mut() = status("12", "unknown service");
            respond.send_response(head, true).expect("open");
        }
        "PodSandboxStatus" => {
            let mut body = respond.send_response(head(), false).expect("open");
            body.send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), true).expect("open");
        }
        // ListPodSandbox waits for an answer as long as the server lives.
        _ => tokio::time::sleep(LONG * 10).await,
    }
}

/// A channel to a server that serves while the test's runtime runs.
async fn channel(folder: &std::path::Path) -> Channel {
    let socket = folder.join("sock");
    let listener = UnixListener::bind(&socket).expect("a socket can be made");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client comes");
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(async move { answer(request.uri().path(), respond).await });
        }
    });
    Channel::connect(&socket, LONG).await.expect("it listens")
}

fn with_server<T>(work: impl AsyncFnOnce(Channel) -> T) -> T {
    let folder = std::env::temp_dir().join(format!(
        "netsonde-cri-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    let answer = runtime.block_on(async { work(channel(&folder).await).await });
    std::fs::remove_dir_all(&folder).expect("it can be removed");
    answer
}

#[test]
fn an_answer_in_many_pieces_is_whole() {
    let version = with_server(async |channel| channel.version(LONG).await);
    assert_eq!(version.expect("answered").runtime_name, "test");
}

#[test]
fn a_call_that_is_not_known_is_refused_as_such() {
    let error = with_server(async |channel| {
        channel.containerd_tasks().await.expect("asked").next().await.expect_err("refused")
    });
    let Error::Refused { code, message } = error else { panic!("{error}") };
    assert_eq!((code, &*message), (Code::Unimplemented, "unknown service"));
}

#[test]
fn silence_ends_in_time_and_costs_no_other_call() {
    let (list, version) =
        with_server(async |channel| (channel.sandboxes(SOON).await, channel.version(LONG).await));
    assert!(matches!(list, Err(Error::Late(SOON))), "{list:?}");
    assert!(version.is_ok(), "{version:?}");
}

#[test]
fn an_answer_that_breaks_off_is_told() {
    let error = with_server(async |channel| channel.sandbox("a", LONG).await).expect_err("cut");
    assert!(error.to_string().contains("ends in the middle"), "{error}");
}

#[test]
fn whoever_stops_waiting_for_an_event_gets_it_the_next_time() {
    with_server(async |channel| {
        let mut events = channel.events().await.expect("asked");
        for _ in 0..3 {
            tokio::time::timeout(SOON / 2, events.next()).await.expect_err("nothing yet");
        }
        for id in ["a", "b"] {
            let event = events.next().await.expect("no error").expect("an event");
            assert_eq!(event.container_id, id);
        }
        let error = events.next().await.expect_err("the server ended it").to_string();
        assert_eq!(error, "going away (Other(14))");
        assert!(events.next().await.expect("it is over").is_none());
    });
}

#[test]
fn nobody_there_is_told_apart() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    let nowhere = std::path::Path::new("/nowhere/sock");
    let error = runtime.block_on(Channel::connect(nowhere, LONG)).expect_err("nobody is there");
    let Error::Connect(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
