//! `netdev`: what the network devices of each namespace received, sent and dropped, and whether they are up.

mod metrics;
mod parse;

use std::collections::HashMap;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Counter, Folded, MonotonicSum, Namespace, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec,
    Samples, StartError, Started, View, label,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::parse::{COUNTERS, Device, SUMMED};
use crate::os::link::{DeviceKind, Links, Name};
use crate::os::netlink::Protocol;
use crate::os::{Host, NetFile, Netns};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "netdev",
        aliases: &[],
        about: "Bytes, packets, errors and drops of network devices",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

const MOST_DEVICES: usize = 4096;

/// Settings of `netdev`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// How many devices of a namespace have series of their own; the rest is added up in `device="other"`.
    /// On the host a quarter is kept for physical devices. 0 to 4096, 64 unless set.
    #[schemars(range(min = 0, max = MOST_DEVICES))]
    max_devices: usize,
    /// Kinds of devices that have no series of their own and are not in `device="other"` either, for example
    /// `[loopback, veth]`. The sums of the namespace do not change. None unless set.
    ignore_kinds: Vec<DeviceKind>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_devices: 64, ignore_kinds: Vec::new() }
    }
}

type OfDevice = Counter<(label::Device, DeviceKind)>;

static SUMS: [&Counter<()>; SUMMED] = [
    &metrics::RX_BYTES,
    &metrics::RX_PACKETS,
    &metrics::RX_ERRORS,
    &metrics::RX_DROPPED,
    &metrics::TX_BYTES,
    &metrics::TX_PACKETS,
    &metrics::TX_ERRORS,
    &metrics::TX_DROPPED,
];

/// The last five are for physical devices only: elsewhere they are always 0.
static OF_DEVICE: [&OfDevice; COUNTERS] = [
    &metrics::DEVICE_RX_BYTES,
    &metrics::DEVICE_RX_PACKETS,
    &metrics::DEVICE_RX_ERRORS,
    &metrics::DEVICE_RX_DROPPED,
    &metrics::DEVICE_TX_BYTES,
    &metrics::DEVICE_TX_PACKETS,
    &metrics::DEVICE_TX_ERRORS,
    &metrics::DEVICE_TX_DROPPED,
    &metrics::DEVICE_RX_FIFO,
    &metrics::DEVICE_RX_FRAME,
    &metrics::DEVICE_RX_MULTICAST,
    &metrics::DEVICE_TX_FIFO,
    &metrics::DEVICE_TX_CARRIER,
];

const OTHER: &str = "other";

/// What is kept of one namespace.
#[derive(Debug, Default)]
struct Kept {
    sum: MonotonicSum<Name, SUMMED>,
    folded: Folded<Name, SUMMED>,
}

struct Netdev {
    host: Host,
    settings: Settings,
    kept: HashMap<NetnsKey, Kept>,
    buf: Vec<u8>,
    devices: Vec<Device>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let settings: Settings = StartError::settings(args)?;
    if settings.max_devices > MOST_DEVICES {
        let why = format!("max_devices is {}; it must be 0 to {MOST_DEVICES}", settings.max_devices);
        return Err(StartError::Settings(why));
    }
    Ok(Box::new(Netdev {
        host: host.clone(),
        settings,
        kept: HashMap::new(),
        buf: Vec::new(),
        devices: Vec::new(),
    }))
}

impl Probe for Netdev {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let host = self.host.clone();
        host.each(view, |id, ns, netns| self.collect_one(id, ns, netns, out))
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        for key in gone {
            self.kept.remove(key);
        }
    }
}

impl Netdev {
    fn collect_one(
        &mut self,
        id: NsId,
        ns: &Namespace,
        netns: &Netns,
        out: &mut Samples,
    ) -> Result<(), CollectError> {
        let Some(text) = netns.read(NetFile::Dev, &mut self.buf)? else { return Ok(()) };
        parse::parse(text, &mut self.devices)?;
        if !self.tell_kinds(ns.is_host(), netns)? {
            return Ok(());
        }
        let kept = self.kept.entry(ns.key).or_default();
        for device in self.devices.iter().filter(|d| d.summed) {
            kept.sum.add(device.name, summed(device));
        }
        for (metric, value) in SUMS.iter().zip(kept.sum.finish()) {
            out.push(*metric, id, (), value);
        }

        let ignore = &self.settings.ignore_kinds;
        self.devices.retain(|d| !ignore.contains(&d.kind));
        let limit = self.settings.max_devices;
        // Pods come and go on the host by the hundred: their devices must not take every place before the card's.
        let of_virtual = if ns.is_host() { limit - limit / 4 } else { limit };
        if self.devices.len() > of_virtual {
            self.devices.sort_by_key(|d| d.kind != DeviceKind::Physical);
        }
        self.devices.retain(|device| {
            let limit = match device.kind {
                _ if device.name.bytes() == OTHER.as_bytes() => 0,
                DeviceKind::Physical => limit,
                _ => of_virtual,
            };
            kept.folded.take(&device.name, summed(device), limit)
        });
        for device in &self.devices {
            let text = device.name.text();
            let metrics = if device.kind == DeviceKind::Physical { COUNTERS } else { SUMMED };
            for (metric, value) in OF_DEVICE.iter().zip(device.counters).take(metrics) {
                out.push(*metric, id, (&text, device.kind), value);
            }
        }
        if let Some(rest) = kept.folded.finish() {
            for (metric, value) in OF_DEVICE.iter().zip(rest) {
                out.push(*metric, id, (OTHER, DeviceKind::Other), value);
            }
        }
        self.ask_devices(id, netns, out)
    }

    /// Gives each device its kind and whether it is summed. `false` where the namespace ended meanwhile.
    fn tell_kinds(&mut self, host: bool, netns: &Netns) -> Result<bool, CollectError> {
        if !self.host.is_live() {
            for device in &mut self.devices {
                device.summed = device.name.bytes() != b"lo";
            }
            return Ok(true);
        }
        let devices = &mut self.devices;
        let Some(links) = netns.links(&mut self.buf, |links| tell(devices, links, host))? else {
            return Ok(false);
        };
        if !tell(devices, &links, host) {
            // What is in the file and not in the newer dump has gone or has another name since. Its kind is not
            // known, and in the sum of the host it must not be by mistake.
            devices.retain(|d| links.named(d.name).is_some());
        }
        Ok(true)
    }

    /// Whether each device is up, and its MTU.
    fn ask_devices(&self, id: NsId, netns: &Netns, out: &mut Samples) -> Result<(), CollectError> {
        if !self.host.is_live() {
            return Ok(());
        }
        let answers = netns.netlink(Protocol::Route, |netlink| {
            for device in &self.devices {
                let fail = |source| CollectError::Netlink { what: "SIOCGIFFLAGS", source };
                if let Some(now) = netlink.device(device.name).map_err(fail)? {
                    let text = device.name.text();
                    out.push(&metrics::DEVICE_UP, id, (&text, device.kind), u64::from(now.up));
                    out.push(&metrics::DEVICE_MTU_BYTES, id, (&text, device.kind), now.mtu);
                }
            }
            Ok(())
        });
        answers.map(|_| ())
    }
}

/// Takes the kinds from `links`; `false` where they do not fit the devices.
fn tell(devices: &mut [Device], links: &Links, host: bool) -> bool {
    let mut fits = devices.len() == links.len();
    for device in devices {
        let Some(link) = links.named(device.name) else {
            fits = false;
            continue;
        };
        device.kind = link.kind;
        device.summed = match link.kind {
            DeviceKind::Loopback => false,
            DeviceKind::Physical => !(host && link.counted_by_master),
            _ => !host,
        };
    }
    fits
}

fn summed(device: &Device) -> [u64; SUMMED] {
    std::array::from_fn(|i| device.counters[i])
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
