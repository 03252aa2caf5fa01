//! One event as one flat JSON object: the common fields, the probe's own, and how many were suppressed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use netsonde_framework::{Event, Field, Flow, NetnsKey};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Whose an event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
}

/// An event with everything that is known of it.
pub struct Told<'a> {
    pub id: &'a str,
    pub node: &'a str,
    pub probe: &'static str,
    pub owner: Option<&'a Owner>,
    pub peer: Option<&'a Owner>,
    /// Both ends of a packet on its way through, as far as they are known.
    pub src: Option<&'a Owner>,
    pub dst: Option<&'a Owner>,
    /// Whose the namespaces in its fields are.
    pub owner_of: &'a dyn Fn(NetnsKey) -> Option<&'a Owner>,
    pub event: &'a Event,
}

impl Told<'_> {
    /// One line without a line feed.
    pub fn line(&self) -> String {
        let mut line = Vec::with_capacity(512);
        // Strings, numbers and lists of strings always serialise, and a Vec takes all of them.
        serde_json::to_writer(&mut line, self).unwrap_or_default();
        String::from_utf8(line).unwrap_or_default()
    }

    fn field<M: SerializeMap>(&self, map: &mut M, name: &str, field: &Field) -> Result<(), M::Error> {
        match field {
            Field::Number(number) => map.serialize_entry(name, number),
            Field::Flag(flag) => map.serialize_entry(name, flag),
            Field::Text(text) => map.serialize_entry(name, text),
            Field::Shared(text) => map.serialize_entry(name, &**text),
            Field::Texts(texts) => map.serialize_entry(name, &Texts(texts)),
            Field::Netns(key) => {
                let Some(owner) = (self.owner_of)(*key) else { return Ok(()) };
                map.serialize_entry(&format!("{name}_namespace"), &*owner.namespace)?;
                map.serialize_entry(&format!("{name}_pod"), &*owner.pod)
            }
        }
    }
}

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let event = self.event;
        map.serialize_entry("id", self.id)?;
        map.serialize_entry("time", &Time(event.time_ns))?;
        map.serialize_entry("node", self.node)?;
        map.serialize_entry("probe", self.probe)?;
        map.serialize_entry("type", event.def.name)?;
        map.serialize_entry("severity", event.def.severity.text())?;
        let owners = [
            (self.owner, "namespace", "pod"),
            (self.peer, "peer_namespace", "peer_pod"),
            (self.src, "src_namespace", "src_pod"),
            (self.dst, "dst_namespace", "dst_pod"),
        ];
        for (owner, namespace, pod) in owners {
            if let Some(owner) = owner {
                map.serialize_entry(namespace, &*owner.namespace)?;
                map.serialize_entry(pod, &*owner.pod)?;
            }
        }
        if let Some(Flow { protocol, src, dst, ports }) = &event.flow {
            map.serialize_entry("protocol", protocol)?;
            map.serialize_entry("src", &Address(*src))?;
            if let Some((port, _)) = ports {
                map.serialize_entry("sport", port)?;
            }
            map.serialize_entry("dst", &Address(*dst))?;
            if let Some((_, port)) = ports {
                map.serialize_entry("dport", port)?;
            }
        }
        for (name, field) in &event.fields {
            self.field(&mut map, name, field)?;
        }
        if event.suppressed > 0 {
            map.serialize_entry("suppressed", &event.suppressed)?;
        }
        map.end()
    }
}

struct Address(IpAddr);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Time(u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = UNIX_EPOCH + Duration::from_nanos(self.0);
        serializer.collect_str(&humantime::format_rfc3339_nanos(time))
    }
}

struct Texts<'a>(&'a [Arc<str>]);

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|text| &**text))
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::{EventDef, Severity};

    use super::*;

    static LOSS: EventDef =
        EventDef { name: "PacketLoss", help: "Lost.", severity: Severity::Warning, fields: &[] };

    #[test]
    fn an_event_is_one_flat_object_in_a_fixed_order() {
        let flow = Flow {
            protocol: "tcp".into(),
            src: "10.0.0.1".parse().expect("an address"),
            dst: "fd00::2".parse().expect("an address"),
            ports: Some((1024, 80)),
        };
        let event = Event {
            def: &LOSS,
            time_ns: 1_700_000_000_000_000_042,
            netns: None,
            flow: Some(flow),
            fields: vec![("reason", "NO \"SOCKET\"".into()), ("stack", vec![Arc::from("a+0x1")].into())],
            suppressed: 3,
        };
        let owner = Owner { namespace: "shop".into(), pod: "cart-0".into() };
        let told = Told {
            id: "1-2",
            node: "n",
            probe: "packetloss",
            owner: Some(&owner),
            peer: None,
            src: None,
            dst: None,
            owner_of: &|_| None,
            event: &event,
        };
        assert_eq!(
            told.line(),
            r#"{"id":"1-2","time":"2023-11-14T22:13:20.000000042Z","node":"n","probe":"packetloss","type":"PacketLoss","severity":"warning","namespace":"shop","pod":"cart-0","protocol":"tcp","src":"10.0.0.1","sport":1024,"dst":"fd00::2","dport":80,"reason":"NO \"SOCKET\"","stack":["a+0x1"],"suppressed":3}"#
        );
    }

    #[test]
    fn a_namespace_in_a_field_is_told_by_its_labels_or_not_at_all() {
        let owner = Owner { namespace: "shop".into(), pod: "cart-0".into() };
        let fields =
            vec![("cause", NetnsKey(7).into()), ("other", NetnsKey(8).into()), ("after", 1u32.into())];
        let event = Event { def: &LOSS, time_ns: 0, netns: None, flow: None, fields, suppressed: 0 };
        let owner_of = |key| (key == NetnsKey(7)).then_some(&owner);
        let told = Told {
            id: "1-2",
            node: "n",
            probe: "packetloss",
            owner: None,
            peer: None,
            src: None,
            dst: None,
            owner_of: &owner_of,
            event: &event,
        };
        let line = told.line();
        assert!(line.ends_with(r#""cause_namespace":"shop","cause_pod":"cart-0","after":1}"#), "{line}");
    }
}
