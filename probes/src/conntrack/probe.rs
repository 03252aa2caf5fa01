//! `conntrack`: how full the table of tracked connections is, and what connection tracking dropped and why.

mod metrics;
mod parse;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::time::{Duration, Instant};

use netsonde_framework::probe::Failures;
use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, Counter, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use self::parse::{COUNTERS, Sums, Table};
use crate::os::Host;
use crate::os::netlink::{Answer, Netlink, Protocol};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "conntrack",
        aliases: &[],
        about: "Connection tracking: entries, failed inserts, drops",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &["CAP_NET_ADMIN", "kernel modules nf_conntrack and nf_conntrack_netlink (or built in)"],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

/// By attribute, CTA_STATS_SEARCHED first.
static BY_ATTRIBUTE: [&Counter<()>; COUNTERS] = [
    &metrics::SEARCHED,
    &metrics::FOUND,
    &metrics::NEW,
    &metrics::INVALID,
    &metrics::IGNORE,
    &metrics::DELETE,
    &metrics::DELETE_LIST,
    &metrics::INSERT,
    &metrics::INSERT_FAILED,
    &metrics::DROP,
    &metrics::EARLY_DROP,
    &metrics::ERROR,
    &metrics::SEARCH_RESTART,
    &metrics::CLASH_RESOLVE,
    &metrics::CHAIN_TOOLONG,
];
const IGNORE: usize = 4;

/// Files that are there when connection tracking is, whatever the namespace of the reader.
const SIGNS: [&str; 3] =
    ["sys/net/netfilter/nf_conntrack_max", "net/stat/nf_conntrack", "1/net/stat/nf_conntrack"];
/// After the kernel said that it has no ctnetlink.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The counters of a namespace that uses connection tracking, extended to 64 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    last: [u32; COUNTERS],
    total: [u64; COUNTERS],
}

impl Kept {
    fn new(sums: &Sums) -> Self {
        Self { last: sums.lower, total: sums.wide }
    }

    fn update(&mut self, sums: &Sums) {
        for ((total, last), now) in self.total.iter_mut().zip(&mut self.last).zip(sums.lower) {
            *total += u64::from(now.wrapping_sub(*last));
            *last = now;
        }
    }
}

struct Conntrack {
    host: Host,
    /// Namespaces that use connection tracking, or did once.
    kept: HashMap<NetnsKey, Kept>,
    missing_until: Option<Instant>,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    let mut probe =
        Conntrack { host: host.clone(), kept: HashMap::new(), missing_until: None, buf: Vec::new() };
    if probe.is_loaded() {
        probe.may_ask()?;
    }
    Ok(Box::new(probe))
}

impl Probe for Conntrack {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        if !self.is_loaded() {
            return Ok(());
        }
        let mut failures = Failures::default();
        for (id, ns) in view.topology.iter() {
            let Some(netns) = self.host.netns(ns.key) else { continue };
            match netns.netlink(Protocol::Netfilter, |netlink| ask(netlink, &mut self.buf)) {
                Ok(Some(Some((sums, table)))) => self.emit(id, ns.key, ns.is_host(), &sums, table, out),
                Ok(Some(None)) => {
                    self.missing_until = Some(Instant::now() + ASK_AGAIN);
                    break;
                }
                Ok(None) => {}
                Err(error) => failures.add(&ns.identity.pod, error),
            }
        }
        failures.finish()
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        for key in gone {
            self.kept.remove(key);
        }
    }
}

impl Conntrack {
    /// Whether to ask at all. Where the kernel has no connection tracking, the question alone would make it load
    /// nf_conntrack and its netlink side.
    fn is_loaded(&self) -> bool {
        self.host.is_live()
            && self.missing_until.is_none_or(|until| Instant::now() >= until)
            && SIGNS.iter().any(|sign| self.host.proc().join(sign).exists())
    }

    /// Asks the agent's own namespace: without the right to, it would be the same answer in every one.
    fn may_ask(&mut self) -> Result<(), StartError> {
        let mut netlink = Netlink::open(Protocol::Netfilter)
            .map_err(|error| StartError::Unsupported(format!("cannot open NETLINK_NETFILTER: {error}")))?;
        match ask(&mut netlink, &mut self.buf) {
            Err(error @ CollectError::Netlink { .. }) if is_forbidden(&error) => {
                Err(StartError::Unsupported(error.to_string()))
            }
            // Anything else is told by the scrape that meets it.
            _ => Ok(()),
        }
    }

    /// Appends the series of a namespace that uses connection tracking; the host's always.
    fn emit(&mut self, id: NsId, key: NetnsKey, host: bool, sums: &Sums, table: Table, out: &mut Samples) {
        let used = table.entries.is_some_and(|n| n > 0) || sums.wide.iter().any(|n| *n > 0);
        let kept = match self.kept.entry(key) {
            Entry::Occupied(kept) => {
                let kept = kept.into_mut();
                kept.update(sums);
                kept
            }
            Entry::Vacant(kept) if host || used => kept.insert(Kept::new(sums)),
            Entry::Vacant(_) => return,
        };
        for ((metric, given), total) in BY_ATTRIBUTE.iter().zip(sums.given).zip(kept.total) {
            if given {
                out.push(*metric, id, (), total);
            }
        }
        out.push(&metrics::IGNORE_OR_ZERO, id, (), kept.total[IGNORE]);
        if let Some(entries) = table.entries {
            out.push(&metrics::ENTRIES, id, (), entries);
        }
        if let Some(max_entries) = table.max_entries {
            out.push(&metrics::MAX_ENTRIES, id, (), max_entries);
        }
    }
}

/// Asks one namespace; `None` where the kernel has no ctnetlink.
fn ask(netlink: &mut Netlink, buf: &mut Vec<u8>) -> Result<Option<(Sums, Table)>, CollectError> {
    const CTNETLINK: u16 = 1 << 8;
    const IPCTNL_MSG_CT_GET_STATS_CPU: u16 = CTNETLINK | 4;
    const IPCTNL_MSG_CT_GET_STATS: u16 = CTNETLINK | 5;
    const NFGENMSG: [u8; 4] = [0; 4];
    let sums = netlink.ask(
        "IPCTNL_MSG_CT_GET_STATS_CPU",
        Answer::Dump,
        IPCTNL_MSG_CT_GET_STATS_CPU,
        &NFGENMSG,
        buf,
        |sums: &mut Sums, _, payload| parse::add_cpu(payload, sums),
    );
    let sums = match sums {
        Ok(sums) => sums,
        Err(CollectError::Netlink { source, .. }) if is_missing(&source) => return Ok(None),
        Err(error) => return Err(explained(error)),
    };
    let table = netlink.ask(
        "IPCTNL_MSG_CT_GET_STATS",
        Answer::One,
        IPCTNL_MSG_CT_GET_STATS,
        &NFGENMSG,
        buf,
        |table: &mut Table, _, payload| parse::table(payload, table),
    );
    Ok(Some((sums, table.map_err(explained)?)))
}

/// What nfnetlink answers where ctnetlink is not registered.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)
    )
}

fn is_forbidden(error: &CollectError) -> bool {
    matches!(error, CollectError::Netlink { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}

/// Says what is missing where the kernel only says no.
fn explained(error: CollectError) -> CollectError {
    match error {
        CollectError::Netlink { what, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            let why = format!("{source}: conntrack statistics need CAP_NET_ADMIN in the namespace");
            CollectError::Netlink { what, source: io::Error::new(source.kind(), why) }
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
