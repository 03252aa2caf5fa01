//! Events as their readers get them: over HTTP as they come, on the command line, and in Loki.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use netsonde_tests::agent::netsonde;
use netsonde_tests::events::until_events;
use netsonde_tests::lab::send;
use netsonde_tests::{Agent, Loki, Netns, Pair, Running, needs_root, shell, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

/// An agent that has found both sides.
fn agent_of(pair: &Pair, more: &str) -> Agent {
    let agent = Agent::start(&format!("node_name: lab\nprobes: [packetloss]\n{more}"));
    for ns in [&pair.a, &pair.b] {
        agent.find(ns.name());
    }
    agent
}

/// A datagram to a port that nobody listens on, from a socket of its own.
fn lose(pair: &Pair) {
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6001", 1, 100);
}

fn loss_of(ns: &Netns) -> String {
    format!("type=PacketLoss&pod={}", ns.name())
}

#[test]
fn a_listener_gets_the_last_events_and_then_each_as_it_comes() {
    needs_root!();
    let pair = Pair::v4("listener");
    let agent = agent_of(&pair, "");
    lose(&pair);
    let first = until_events(&agent, &loss_of(&pair.b), 1).remove(0);
    let mut stream = TcpStream::connect(agent.address).expect("the agent serves");
    let query = loss_of(&pair.b);
    write!(stream, "GET /events?last=1&{query} HTTP/1.1\r\nHost: agent\r\n\r\n")
        .expect("a request can be sent");
    let (lines, told) = mpsc::channel::<String>();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let next = |start: &str| loop {
        let line =
            told.recv_timeout(SOON).unwrap_or_else(|e| panic!("no line that begins with {start}: {e}"));
        if let Some(rest) = line.strip_prefix(start) {
            return rest.trim().to_owned();
        }
    };
    assert_eq!(next("content-type:"), "text/event-stream");
    assert_eq!(serde_json::from_str::<Value>(&next("data:")).expect("JSON"), first);
    assert_eq!(next("id:"), first["id"].as_str().expect("an id"));
    lose(&pair);
    let second: Value = serde_json::from_str(&next("data:")).expect("JSON");
    assert_ne!(second["id"], first["id"]);
    assert_eq!(second["pod"], pair.b.name());
    // The listener is still there; the agent ends in time all the same.
    agent.stop();
    drop(told);
    reader.join().expect("the stream ended");
}

#[test]
fn a_wrong_condition_is_refused_with_what_there_is() {
    let agent = Agent::start("probes: []\n");
    let answer = agent.get("/events?pods=x", &[]);
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("there are last, follow, namespace, pod, probe, type"),
        "{}",
        answer.text()
    );
    assert_eq!(agent.get("/events?last=3&follow=false", &[]).status, 200);
    agent.stop();
}

#[test]
fn the_command_prints_text_or_json_and_follows() {
    needs_root!();
    let pair = Pair::v4("command");
    let agent = agent_of(&pair, "");
    lose(&pair);
    let event = until_events(&agent, &loss_of(&pair.b), 1).remove(0);
    let url = format!("http://{}", agent.address);
    let pod = pair.b.name();

    let json = shell::run(&mut netsonde(&["events", "--url", &url, "--pod", pod]));
    assert_eq!(serde_json::from_str::<Value>(&json).expect("one line of JSON"), event);
    let text =
        shell::run(&mut netsonde(&["events", "--url", &url, "--pod", pod, "--output", "text", "--stacks"]));
    let mut lines = text.lines();
    let line = lines.next().expect("a line");
    assert!(line.contains(&format!("PacketLoss netns/{pod} udp 10.9.0.1:")), "{text}");
    assert!(line.contains(" -> 10.9.0.2:6001") && line.contains("reason=NO_SOCKET"), "{text}");
    assert!(lines.any(|frame| frame.starts_with("    ip_local_deliver_finish+")), "{text}");

    let mut command = netsonde(&["events", "--url", &url, "--pod", pod, "--follow", "--last", "0"]);
    let mut follower = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut out = BufReader::new(follower.child().stdout.take().expect("a pipe"));
    // It has asked when it is connected; an event before that would not be followed.
    std::thread::sleep(Duration::from_millis(500));
    lose(&pair);
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    let fresh: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_ne!(fresh["id"], event["id"]);
    agent.stop();
    let status = follower.wait(SOON).expect("it ends when the agent does");
    assert_eq!(status.code(), Some(3));
    let mut error = String::new();
    follower.child().stderr.take().expect("a pipe").read_to_string(&mut error).expect("text");
    assert!(error.contains("the agent has"), "{error}");

    let nobody = shell::output(&mut netsonde(&["events", "--url", "http://127.0.0.1:1"]));
    assert_eq!(nobody.status.code(), Some(3));
    let error = String::from_utf8_lossy(&nobody.stderr);
    assert!(error.contains("cannot reach an agent at http://127.0.0.1:1"), "{error}");
}

#[test]
fn a_lost_packet_is_a_line_in_loki_with_the_labels_of_its_pod() {
    needs_root!();
    let pair = Pair::v4("loki");
    let loki = Loki::start();
    let agent = agent_of(
        &pair,
        &format!("sinks: [{{name: loki, args: {{url: \"{}\", batch: {{age: 100ms}}}}}}]\n", loki.url()),
    );
    lose(&pair);
    let entry = until("the event is in Loki", SOON, || {
        let ours = |line: &str| line.contains(pair.b.name());
        loki.entries().into_iter().find(|entry| ours(&entry.line))
    });
    let event: Value = serde_json::from_str(&entry.line).expect("the event as it is");
    assert_eq!((event["reason"].as_str(), event["pod"].as_str()), (Some("NO_SOCKET"), Some(pair.b.name())));
    for label in [
        "job=\"netsonde\"",
        "node=\"lab\"",
        "probe=\"packetloss\"",
        "type=\"PacketLoss\"",
        "namespace=\"netns\"",
    ] {
        assert!(entry.labels.contains(label), "{label} is not in {}", entry.labels);
    }
    let page = agent.scrape();
    let loki_of = |name: &str| page.value(name, &[("sink", "loki")]);
    assert!(loki_of("netsonde_sink_delivered_events_total") >= 1.0);
    assert!(loki_of("netsonde_sink_last_success_timestamp_seconds") > 1e9);
    assert_eq!(agent.status()["sinks"][0]["state"], "delivering");
    agent.stop();
}
