//! `netsonde events`: reads `/events` of a running agent and prints each event.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use reqwest::{Certificate, Client, RequestBuilder};
use serde_json::{Map, Value};

/// What to ask for and how to print it.
#[derive(Debug, Args)]
pub struct Watch {
    /// Go on with the events to come, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// How many of the last events to print first.
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
    /// Only events of this pod; `hostNetwork` for the host.
    #[arg(long)]
    pod: Option<String>,
    /// Only events of pods of this Kubernetes namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// Only events of this probe.
    #[arg(long)]
    probe: Option<String>,
    /// Only events of this type, such as PacketLoss.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Where the agent serves.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9102")]
    url: String,
    /// A PEM file with the authority that signed the agent's certificate, beside those of the system.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The user of basic auth; needs --password-file.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// A file with the user's password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// A file with the token that the agent asks for.
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    bearer_token_file: Option<PathBuf>,
    /// How to print: text on a terminal, json elsewhere.
    #[arg(long, value_enum, default_value = "auto")]
    output: Form,
    /// Print kernel stacks in text, too.
    #[arg(long)]
    stacks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Text on a terminal, JSON in a pipe.
    Auto,
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Prints until the agent has told everything, or without end.
pub fn run(watch: &Watch) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(print(watch))
}

async fn print(watch: &Watch) -> anyhow::Result<()> {
    let text = match watch.output {
        Form::Auto => std::io::stdout().is_terminal(),
        Form::Text => true,
        Form::Json => false,
    };
    let url = watch.url.trim_end_matches('/');
    let mut query = vec![("last", watch.last.to_string()), ("follow", watch.follow.to_string())];
    let only = [
        ("pod", &watch.pod),
        ("namespace", &watch.namespace),
        ("probe", &watch.probe),
        ("type", &watch.kind),
    ];
    query.extend(only.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
    let reach = || format!("cannot reach an agent at {url} (--url names another place)");
    let mut answer =
        request(watch, &format!("{url}/events"))?.query(&query).send().await.with_context(reach)?;
    if !answer.status().is_success() {
        let status = answer.status();
        bail!("{url}/events answered {status}: {}", answer.text().await.unwrap_or_default().trim());
    }
    let mut rest = Vec::new();
    while let Some(chunk) = answer.chunk().await.context("the agent has gone")? {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim_end().strip_prefix("data: ") else { continue };
            let out = if text { readable(data, watch.stacks) } else { data.to_owned() };
            if !write(&out)? {
                return Ok(());
            }
        }
    }
    if watch.follow {
        bail!("the agent has ended the stream");
    }
    Ok(())
}

/// A request with what the agent's web configuration asks for.
fn request(watch: &Watch, url: &str) -> anyhow::Result<RequestBuilder> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let mut client = Client::builder();
    if let Some(path) = &watch.ca_file {
        let authorities = Certificate::from_pem_bundle(read(path)?.as_bytes());
        for authority in authorities.with_context(|| format!("{}: no certificates", path.display()))? {
            client = client.add_root_certificate(authority);
        }
    }
    let request = client.build().context("cannot make an HTTP client")?.get(url);
    if let Some(path) = &watch.bearer_token_file {
        return Ok(request.bearer_auth(read(path)?.trim()));
    }
    Ok(match (&watch.user, &watch.password_file) {
        (Some(user), Some(path)) => {
            request.basic_auth(user, Some(read(path)?.trim_end_matches(['\r', '\n'])))
        }
        _ => request,
    })
}

/// `false` when nobody reads any more.
fn write(line: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Fields that have a place of their own in the line.
const PLACED: &[&str] = &[
    "id",
    "time",
    "node",
    "probe",
    "type",
    "severity",
    "namespace",
    "pod",
    "peer_namespace",
    "peer_pod",
    "protocol",
    "src",
    "sport",
    "dst",
    "dport",
    "stack",
];

/// `12:14:23.984 PacketLoss netns/web udp 10.0.0.1:5400 -> 10.0.0.2:6000 (shop/cart) reason=NO_SOCKET ...`
fn readable(json: &str, stacks: bool) -> String {
    let Ok(Value::Object(event)) = serde_json::from_str::<Value>(json) else { return json.to_owned() };
    if let Some(lost) = event.get("lost") {
        return format!("-- {lost} events were missed: this reader is too slow --");
    }
    let text = |key: &str| event.get(key).and_then(Value::as_str);
    let time = text("time").unwrap_or_default();
    // The date only where there is no time in it.
    let clock = time.split_once('T').map_or(time, |(_, clock)| clock.get(..12).unwrap_or(clock));
    let mut words = vec![clock.to_owned(), text("type").unwrap_or("?").to_owned()];
    words.push(match (text("namespace"), text("pod")) {
        (Some(namespace), Some(pod)) if namespace == pod => pod.to_owned(),
        (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
        _ => "(unknown pod)".to_owned(),
    });
    let ends = (end(&event, "src", "sport"), end(&event, "dst", "dport"));
    if let (Some(protocol), (Some(from), Some(to))) = (text("protocol"), ends) {
        words.push(format!("{protocol} {from} -> {to}"));
    }
    if let (Some(namespace), Some(pod)) = (text("peer_namespace"), text("peer_pod")) {
        words.push(format!("(peer {namespace}/{pod})"));
    }
    let own = event.iter().filter(|(key, _)| !PLACED.contains(&key.as_str()));
    words.extend(own.map(|(key, value)| match value {
        Value::String(value) => format!("{key}={value}"),
        value => format!("{key}={value}"),
    }));
    let line = words.join(" ");
    match event.get("stack") {
        Some(Value::Array(frames)) if stacks => {
            let frames = frames.iter().filter_map(Value::as_str);
            std::iter::once(line.as_str()).chain(frames).collect::<Vec<_>>().join("\n    ")
        }
        _ => line,
    }
}

fn end(event: &Map<String, Value>, address: &str, port: &str) -> Option<String> {
    let address = event.get(address)?.as_str()?;
    Some(match event.get(port) {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_readable_line() {
        let json = r#"{"id":"1","time":"2026-11-21T07:14:23.984827266Z","node":"n","probe":"packetloss","type":"PacketLoss","severity":"warning","namespace":"shop","pod":"cart-0","peer_namespace":"shop","peer_pod":"db-0","protocol":"udp","src":"fd00::1","sport":1,"dst":"10.0.0.2","dport":2,"reason":"NO_SOCKET","stack":["a+0x1","b+0x2"],"suppressed":3}"#;
        assert_eq!(
            readable(json, false),
            "07:14:23.984 PacketLoss shop/cart-0 udp [fd00::1]:1 -> 10.0.0.2:2 (peer shop/db-0) reason=NO_SOCKET suppressed=3"
        );
        assert!(readable(json, true).ends_with("suppressed=3\n    a+0x1\n    b+0x2"));
        assert!(readable(r#"{"lost":7}"#, false).contains("7 events were missed"));
        assert_eq!(readable("no json", false), "no json");
    }
}
