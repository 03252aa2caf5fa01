//! `qdisc`: what the queues before each device let through, dropped and hold.

mod metrics;
mod parse;
mod track;

use std::collections::HashMap;
use std::fmt::Write as _;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Counter, Folded, Gauge, MonotonicSum, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples,
    StartError, Started, View, label,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::parse::{Parent, Qdisc};
use self::track::{COUNTERS, Track};
use crate::os::link::Links;
use crate::os::netlink::{Answer, Netlink, Protocol};
use crate::os::{Host, Netns};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "qdisc",
        aliases: &[],
        about: "Packets that queueing disciplines let through, drop and hold",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

const MOST_QDISCS: usize = 4096;

/// Settings of `qdisc`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// How many qdiscs of a namespace have series of their own; the rest is added up in `device="other"`.
    /// A quarter is kept for root and ingress qdiscs. 0 to 4096, 64 unless set.
    #[schemars(range(min = 0, max = MOST_QDISCS))]
    max_qdiscs: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_qdiscs: 64 }
    }
}

static SUMS: [&Counter<()>; COUNTERS] =
    [&metrics::BYTES, &metrics::PACKETS, &metrics::DROPS, &metrics::OVERLIMITS, &metrics::REQUEUES];

type OfDevice = (label::Device, metrics::Kind, metrics::Parent);

static OF_DEVICE: [&Counter<OfDevice>; COUNTERS] = [
    &metrics::DEVICE_BYTES,
    &metrics::DEVICE_PACKETS,
    &metrics::DEVICE_DROPS,
    &metrics::DEVICE_OVERLIMITS,
    &metrics::DEVICE_REQUEUES,
];

static OF_DEVICE_NOW: [&Gauge<OfDevice>; 2] = [&metrics::DEVICE_QLEN, &metrics::DEVICE_BACKLOG_BYTES];

const OTHER: &str = "other";

/// A place where there is one qdisc at a time: the index of the device, and the parent.
type Place = (u32, Parent);

/// What is kept of one namespace.
#[derive(Debug, Default)]
struct Kept {
    tracks: HashMap<Place, Track>,
    roots: MonotonicSum<Place, COUNTERS>,
    folded: Folded<Place, COUNTERS>,
    /// Whether there ever was a root that counts.
    had_root: bool,
    round: u64,
}

struct QdiscProbe {
    host: Host,
    max_qdiscs: usize,
    /// Namespaces that have, or had, a root qdisc that counts.
    kept: HashMap<NetnsKey, Kept>,
    buf: Vec<u8>,
    parent: String,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let Settings { max_qdiscs } = StartError::settings(args)?;
    if max_qdiscs > MOST_QDISCS {
        let why = format!("max_qdiscs is {max_qdiscs}; it must be 0 to {MOST_QDISCS}");
        return Err(StartError::Settings(why));
    }
    Ok(Box::new(QdiscProbe {
        host: host.clone(),
        max_qdiscs,
        kept: HashMap::new(),
        buf: Vec::new(),
        parent: String::new(),
    }))
}

impl Probe for QdiscProbe {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let host = self.host.clone();
        host.each(view, |id, ns, netns| self.collect_one(id, ns.key, netns, out))
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        for key in gone {
            self.kept.remove(key);
        }
    }
}

impl QdiscProbe {
    fn collect_one(
        &mut self,
        id: NsId,
        key: NetnsKey,
        netns: &Netns,
        out: &mut Samples,
    ) -> Result<(), CollectError> {
        let Some(mut qdiscs) = netns.netlink(Protocol::Route, |netlink| dump(netlink, &mut self.buf))? else {
            return Ok(());
        };
        if qdiscs.is_empty() && !self.kept.contains_key(&key) {
            return Ok(());
        }
        let knows = |links: &Links| qdiscs.iter().all(|q| links.at(q.device).is_some());
        let links = if qdiscs.is_empty() { None } else { netns.links(&mut self.buf, knows)? };
        // A device that is in neither the kept table nor a new one has gone since, and its qdiscs with it.
        qdiscs.retain(|q| links.as_ref().is_some_and(|l| l.at(q.device).is_some()));
        self.emit(id, key, &mut qdiscs, links.as_deref(), out);
        Ok(())
    }

    /// Takes what one namespace has now and appends its series.
    fn emit(
        &mut self,
        id: NsId,
        key: NetnsKey,
        qdiscs: &mut [Qdisc],
        links: Option<&Links>,
        out: &mut Samples,
    ) {
        let kept = self.kept.entry(key).or_default();
        kept.take(qdiscs);
        if let Some((counters, [qlen, backlog])) = kept.roots(qdiscs) {
            for (metric, value) in SUMS.iter().zip(counters) {
                out.push(*metric, id, (), value);
            }
            out.push(&metrics::QLEN, id, (), qlen);
            out.push(&metrics::BACKLOG_BYTES, id, (), backlog);
        }

        // The root of a card with 64 queues comes before its children, and they leave room for that of another.
        let of_children = self.max_qdiscs - self.max_qdiscs / 4;
        if qdiscs.len() > of_children {
            qdiscs.sort_by_key(is_below);
        }
        let mut waiting = [0; 2];
        for qdisc in qdiscs {
            let place = (qdisc.device, qdisc.parent);
            let Some(track) = kept.tracks.get(&place) else { continue };
            let Some(link) = links.and_then(|l| l.at(qdisc.device)) else { continue };
            let limit = match link.name.bytes() {
                name if name == OTHER.as_bytes() => 0,
                _ if is_below(qdisc) => of_children,
                _ => self.max_qdiscs,
            };
            let now = [u64::from(qdisc.qlen), u64::from(qdisc.backlog)];
            if !kept.folded.take(&place, track.grown, limit) {
                waiting = [waiting[0] + now[0], waiting[1] + now[1]];
                continue;
            }
            self.parent.clear();
            write!(self.parent, "{}", qdisc.parent).expect("writing to a string");
            push(out, id, (&link.name.text(), &qdisc.kind.text(), &self.parent), track.own, now);
        }
        if let Some(rest) = kept.folded.finish() {
            push(out, id, (OTHER, OTHER, OTHER), rest, waiting);
        }
    }
}

impl Kept {
    /// Takes what each place has now and drops what is gone.
    fn take(&mut self, qdiscs: &[Qdisc]) {
        self.round += 1;
        for qdisc in qdiscs {
            let track = self
                .tracks
                .entry((qdisc.device, qdisc.parent))
                .and_modify(|track| track.update(*qdisc))
                .or_insert_with(|| Track::new(*qdisc));
            track.seen = self.round;
        }
        self.tracks.retain(|_, track| track.seen == self.round);
    }

    /// The sums over the roots, counters and what waits; `None` for a namespace that never had a root that counts.
    ///
    /// What is below a root is in its counters already. Ingress and clsact are no queues: what passes clsact on its
    /// way out goes through the root too, and what comes in was never queued here.
    fn roots(&mut self, qdiscs: &[Qdisc]) -> Option<([u64; COUNTERS], [u64; 2])> {
        let mut waiting = [0; 2];
        for qdisc in qdiscs.iter().filter(|q| q.parent == Parent::ROOT) {
            let place = (qdisc.device, qdisc.parent);
            self.roots.add(place, self.tracks.get(&place)?.grown);
            waiting[0] += u64::from(qdisc.qlen);
            waiting[1] += u64::from(qdisc.backlog);
            self.had_root = true;
        }
        let counters = self.roots.finish();
        self.had_root.then_some((counters, waiting))
    }
}

fn is_below(qdisc: &Qdisc) -> bool {
    !matches!(qdisc.parent, Parent::ROOT | Parent::INGRESS)
}

fn push(out: &mut Samples, id: NsId, labels: (&str, &str, &str), counters: [u64; COUNTERS], now: [u64; 2]) {
    for (metric, value) in OF_DEVICE.iter().zip(counters) {
        out.push(*metric, id, labels, value);
    }
    for (metric, value) in OF_DEVICE_NOW.iter().zip(now) {
        out.push(*metric, id, labels, value);
    }
}

/// Asks for the qdiscs that count.
fn dump(netlink: &mut Netlink, buf: &mut Vec<u8>) -> Result<Vec<Qdisc>, CollectError> {
    const RTM_NEWQDISC: u16 = 36;
    const RTM_GETQDISC: u16 = 38;
    netlink.ask(
        "RTM_GETQDISC",
        Answer::Dump,
        RTM_GETQDISC,
        &[0; 20],
        buf,
        |qdiscs: &mut Vec<Qdisc>, kind, payload| {
            if kind == RTM_NEWQDISC {
                qdiscs.extend(parse::parse(payload)?);
            }
            Ok(())
        },
    )
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
