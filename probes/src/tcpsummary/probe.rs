//! `tcpsummary`: TCP sockets by state and the queues of connections and listeners, for each namespace.
//!
//! Read on an interval of its own: a dump walks the whole machine's table of connections even for a namespace that
//! has none. Namespaces whose `sockstat` says that there are no TCP sockets are not dumped.

mod diag;
mod listeners;
mod metrics;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use diag::Counts;
use listeners::Listeners;
use metrics::State;
use netsonde_framework::probe::Failures;
use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Interval, Namespace, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError,
    Started, View,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::os::netlink::Protocol;
use crate::os::{Host, NetFile, Netns};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "tcpsummary",
        aliases: &[],
        about: "TCP sockets by state, their queues, and listeners that fall behind",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[
            "CAP_SYS_ADMIN, to enter the namespaces of others",
            "kernel with CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG (modules inet_diag and tcp_diag)",
        ],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

const SHORTEST: Duration = Duration::from_secs(1);
const MOST_LISTENERS: usize = 256;

/// Settings of `tcpsummary`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How often the sockets are read; scrapes in between report the last reading. Default 15s, at least 1s.
    #[schemars(extend("formatMinimum" = "1s"))]
    interval: Interval,
    /// How many listening addresses of each namespace have series of their own; those beyond are added up under
    /// `other`. Default 32, from 0 to 256.
    #[schemars(range(min = 0, max = 256))]
    max_listeners: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interval: Interval::seconds(15), max_listeners: 32 }
    }
}

impl Settings {
    fn check(&self) -> Result<(), StartError> {
        if self.interval.0 < SHORTEST {
            return Err(StartError::Settings("interval: must be at least 1s".into()));
        }
        if self.max_listeners > MOST_LISTENERS {
            return Err(StartError::Settings(format!("max_listeners: must be at most {MOST_LISTENERS}")));
        }
        Ok(())
    }
}

/// The last reading of a namespace.
#[derive(Debug, Default)]
struct Reading {
    /// `None` where it could not be read; it is tried again with the next refresh.
    counts: Option<Counts>,
    listeners: Listeners,
}

struct TcpSummary {
    host: Host,
    settings: Settings,
    readings: HashMap<NetnsKey, Reading>,
    refreshed: Option<Instant>,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let settings: Settings = StartError::settings(args)?;
    settings.check()?;
    if host.is_live() {
        diag::supported().map_err(|error| {
            if diag::is_absent(&error) {
                StartError::Unsupported(format!(
                    "this kernel does not tell of TCP sockets (CONFIG_INET_TCP_DIAG, module tcp_diag): {error}"
                ))
            } else {
                StartError::Failed(error.to_string())
            }
        })?;
    }
    Ok(Box::new(TcpSummary {
        host: host.clone(),
        settings,
        readings: HashMap::new(),
        refreshed: None,
        buf: Vec::new(),
    }))
}

/// The number after `name` in the line of a sockstat file that begins with `group`.
fn sockstat(text: &[u8], group: &str, name: &str) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(group)?.strip_prefix(':'))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

/// Whether the kernel says that there is no TCP socket at all; `false` where it does not say.
///
/// TIME_WAIT is counted for both IP versions in `sockstat`. A connection request has a listener, which counts.
fn is_idle(netns: &Netns, buf: &mut Vec<u8>) -> Result<bool, CollectError> {
    let zero = |text: &[u8], group, name| sockstat(text, group, name) == Some(0);
    let Some(text) = netns.read(NetFile::Sockstat, buf)? else { return Ok(false) };
    if !zero(text, "TCP", "inuse") || !zero(text, "TCP", "tw") {
        return Ok(false);
    }
    // Without IPv6 there is no such file and no such socket.
    Ok(netns.read(NetFile::Sockstat6, buf)?.is_none_or(|text| zero(text, "TCP6", "inuse")))
}

impl TcpSummary {
    fn read(&mut self, ns: &Namespace) -> Result<(), CollectError> {
        let reading = self.readings.entry(ns.key).or_default();
        reading.counts = None;
        let Some(netns) = self.host.netns(ns.key) else { return Ok(()) };
        if is_idle(&netns, &mut self.buf)? {
            *reading = Reading { counts: Some(Counts::default()), ..Reading::default() };
            return Ok(());
        }
        let buf = &mut self.buf;
        if let Some(dump) = netns.netlink(Protocol::SockDiag, |netlink| diag::dump(netlink, buf))? {
            reading.listeners.update(dump.listening, self.settings.max_listeners);
            reading.counts = Some(dump.counts);
        }
        Ok(())
    }
}

impl Reading {
    fn push(&self, id: NsId, out: &mut Samples) {
        let Some(counts) = &self.counts else { return };
        for (state, count) in State::ALL.iter().zip(counts.states) {
            out.push(&metrics::SOCKETS, id, *state, count);
        }
        out.push(&metrics::TIME_WAIT, id, (), counts.states[State::TimeWait as usize]);
        out.push(&metrics::RECEIVE_QUEUE, id, (), counts.receive_queue);
        out.push(&metrics::SEND_QUEUE, id, (), counts.send_queue);
        let own = self.listeners.own.iter().map(|l| ((l.address.as_str(), l.port.as_str()), l.queue));
        let other = self.listeners.other.map(|queue| (("other", "other"), queue));
        for (labels, queue) in own.chain(other) {
            out.push(&metrics::ACCEPT_QUEUE, id, labels, queue.length);
            out.push(&metrics::ACCEPT_QUEUE_LIMIT, id, labels, queue.limit);
        }
        out.push(&metrics::ACCEPT_QUEUES_FULL, id, (), counts.full);
    }
}

impl Probe for TcpSummary {
    fn interval(&self) -> Option<Duration> {
        Some(self.settings.interval.0)
    }

    fn refresh(&mut self, view: &View<'_>) -> Result<(), CollectError> {
        let mut failures = Failures::default();
        for (_, ns) in view.topology.iter() {
            if let Err(error) = self.read(ns) {
                failures.add(&ns.identity.pod, error);
            }
        }
        self.refreshed = Some(Instant::now());
        failures.finish()
    }

    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut failures = Failures::default();
        for (id, ns) in view.topology.iter() {
            // One that appeared since the last refresh.
            if !self.readings.contains_key(&ns.key)
                && let Err(error) = self.read(ns)
            {
                failures.add(&ns.identity.pod, error);
            }
            if let Some(reading) = self.readings.get(&ns.key) {
                reading.push(id, out);
            }
        }
        if let (Some((id, _)), Some(refreshed)) = (view.topology.host(), self.refreshed) {
            out.push(&metrics::AGE, id, (), refreshed.elapsed().as_secs_f64());
        }
        failures.finish()
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        for key in gone {
            self.readings.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use netsonde_framework::{Limits, Topology, Value};
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    const IDLE: &str = "sockets: used 14\nTCP: inuse 0 orphan 3 tw 0 alloc 1 mem 184\nUDP: inuse 5 mem 0\n";

    #[test]
    fn an_idle_namespace_has_zeros_without_a_dump() {
        let mut machine = Machine::frozen();
        machine.file("1/net/sockstat", IDLE);
        machine.file("1/net/sockstat6", "TCP6: inuse 0\nUDP6: inuse 2\n");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let ns = machine.ns(1001);
        for state in State::ALL {
            let labels = format!("state=\"{}\"", state.text());
            assert_eq!(samples.value("tcpsummary_sockets", ns, &labels), Some(Value::U64(0)), "{labels}");
        }
        assert_eq!(samples.value("tcpsummary_accept_queues_full", ns, ""), Some(Value::U64(0)));
    }

    #[test]
    fn a_namespace_with_sockets_is_never_taken_for_idle() {
        for (four, six) in [
            ("TCP: inuse 1 orphan 0 tw 0\n", "TCP6: inuse 0\n"),
            ("TCP: inuse 0 orphan 0 tw 1\n", "TCP6: inuse 0\n"),
            ("TCP: inuse 0 orphan 0 tw 0\n", "TCP6: inuse 1\n"),
            ("TCP: inuse 0 orphan 0\n", "TCP6: inuse 0\n"),
            ("TCP: inuse x tw 0\n", "TCP6: inuse 0\n"),
            ("TCP: inuse 0 orphan 0 tw 0\n", "TCP6: in"),
            ("", ""),
        ] {
            let mut machine = Machine::frozen();
            machine.file("1/net/sockstat", four);
            machine.file("1/net/sockstat6", six);
            let mut probe = machine.start(&SPEC, json!({}));
            let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
            // A frozen tree cannot be dumped, so it has nothing rather than zeros.
            assert!(result.is_ok() && samples.columns()[0].rows.is_empty(), "{four}{six}");
        }
    }

    #[test]
    fn the_reference_names_are_all_there() {
        let names: Vec<_> =
            metrics::ALL.iter().filter_map(|m| m.reference).map(|r| (r.name, r.only)).collect();
        assert_eq!(
            names,
            [
                ("kubeskoop_tcpsummary_tcpestablishedconn", Some("state=\"established\"")),
                ("kubeskoop_tcpsummary_tcptimewaitconn", None),
                ("kubeskoop_tcpsummary_tcprxqueue", None),
                ("kubeskoop_tcpsummary_tcptxqueue", None),
            ]
        );
    }

    #[test]
    fn settings_have_bounds_and_unknown_ones_are_refused() {
        let machine = Machine::frozen();
        let interval = |args| (SPEC.start)(&args, &machine.host).map(|p| p.interval());
        assert_eq!(interval(json!({})).expect("defaults"), Some(Duration::from_secs(15)));
        assert_eq!(interval(json!({"interval": "1m"})).expect("allowed"), Some(Duration::from_mins(1)));
        for (args, named) in [
            (json!({"interval": "999ms"}), "interval"),
            (json!({"interval": 5}), "invalid type"),
            (json!({"max_listeners": 257}), "max_listeners"),
            (json!({"max_listener": 1}), "max_listener"),
        ] {
            let error = interval(args).expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    /// A listener with connections that nobody accepts, and what the probe says of it.
    fn with_backlog(address: &str, check: impl Fn(&Samples, NsId, &str)) {
        let listener = TcpListener::bind(address).expect("free port");
        let to = listener.local_addr().expect("bound");
        let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(to).expect("accepted")).collect();
        let mut machine = Machine::live();
        let inode = rustix::fs::stat("/proc/thread-self/ns/net").expect("there").st_ino;
        let mut probe = machine.start(&SPEC, json!({"max_listeners": 256}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let labels = format!("address=\"{}\",port=\"{}\"", to.ip(), to.port());
        check(&samples, machine.ns(inode), &labels);
        drop(clients);
    }

    #[test]
    fn connections_that_nobody_accepts_are_in_their_listeners_queue() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            with_backlog(address, |samples, ns, labels| {
                let queue = samples.value("tcpsummary_accept_queue_length", ns, labels);
                assert_eq!(queue, Some(Value::U64(3)), "{labels}");
                let limit = samples.value("tcpsummary_accept_queue_limit", ns, labels);
                assert!(limit.is_some_and(|l| l.as_f64() >= 3.0), "{limit:?}");
                let state = |name: &str| {
                    samples.value("tcpsummary_sockets", ns, &format!("state=\"{name}\"")).map(Value::as_f64)
                };
                assert!(state("established") >= Some(6.0), "both ends are here");
                assert!(state("listen") >= Some(1.0));
            });
        }
    }

    #[test]
    fn scrapes_report_the_last_reading_and_read_new_namespaces_at_once() {
        let machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({"max_listeners": 256}));
        let view = View { topology: &machine.topology, scrape: 1 };
        let mut out = Samples::new(metrics::ALL, Limits::default());
        probe.collect(&view, &mut out).expect("readable");
        // Other namespaces of this machine may end while the test runs.
        let (host, _) = machine.topology.host().expect("the host is there");
        let states = out.columns()[0].rows.iter().filter(|row| row.ns == host).count();
        assert_eq!(states, State::ALL.len());
        let age = |out: &Samples| out.columns().last().expect("declared").rows.len();
        assert_eq!(age(&out), 0, "nothing was refreshed yet");

        let late = TcpListener::bind("127.0.0.1:0").expect("free port");
        let labels = format!("address=\"127.0.0.1\",port=\"{}\"", late.local_addr().expect("bound").port());
        let inode = rustix::fs::stat("/proc/thread-self/ns/net").expect("there").st_ino;
        let mut collect = |refresh| {
            if refresh {
                probe.refresh(&view).expect("readable");
            }
            let mut out = Samples::new(metrics::ALL, Limits::default());
            probe.collect(&view, &mut out).expect("readable");
            (out.value("tcpsummary_accept_queue_length", machine.ns(inode), &labels), age(&out))
        };
        assert_eq!(collect(false), (None, 0), "the reading before it was there");
        assert_eq!(collect(true), (Some(Value::U64(0)), 1));
    }

    #[test]
    fn a_namespace_that_is_gone_has_no_series() {
        let mut machine = Machine::frozen();
        machine.file("1/net/sockstat", IDLE);
        let mut probe = machine.start(&SPEC, json!({}));
        machine.collect(&mut *probe, metrics::ALL).1.expect("readable");
        let key = machine.topology.get(machine.ns(1001)).expect("there").key;
        probe.forget(&[key]);
        machine.topology = Topology::default();
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        assert_eq!(samples.series(), 0);
    }
}
