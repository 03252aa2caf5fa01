//! The devices of a namespace: index, name and kind (kept between scrapes), and whether they are up (asked each time).
//!
//! RTM_GETLINK takes the lock that every change of a device needs, so the table is kept and read anew only when the
//! caller sees that it does not fit, and once a minute in case that a device was replaced by one of the same name.
//! What changes from moment to moment (up, MTU) is not in the table: a kept answer would be a wrong one.

use std::borrow::Cow;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};
use std::{fmt, io};

use netsonde_framework::{CollectError, NetnsKey, closed_label};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::netlink::{Answer, Netlink, attributes};

/// A name as the kernel keeps it: at most 15 bytes, then zeros (`IFNAMSIZ`). Any byte but `/`, `:` and blanks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name([u8; 16]);

impl Name {
    /// A name of these bytes, up to the first zero; `None` where they are none or more than 15.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let length = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        let mut name = [0; 16];
        name.get_mut(..length)?.copy_from_slice(&bytes[..length]);
        (1..16).contains(&length).then_some(Self(name))
    }

    /// The bytes without the zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len())]
    }

    /// The name for a label. Bytes that are no UTF-8 are escaped, so two names never give the same text.
    pub fn text(&self) -> Cow<'_, str> {
        match std::str::from_utf8(self.bytes()) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(self.bytes().escape_ascii().to_string()),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text(), f)
    }
}

closed_label! {
    /// The kind of device in the kernel's word (IFLA_INFO_KIND); `physical` has none and is not the loopback.
    pub enum DeviceKind = "kind" {
        Physical = "physical", Loopback = "loopback", Veth = "veth", Netkit = "netkit", Bridge = "bridge",
        Bond = "bond", Team = "team", Vlan = "vlan", Macvlan = "macvlan", Macvtap = "macvtap", Ipvlan = "ipvlan",
        Ipvtap = "ipvtap", Vxlan = "vxlan", Geneve = "geneve", Gre = "gre", Gretap = "gretap", Ip6gre = "ip6gre",
        Ip6gretap = "ip6gretap", Ipip = "ipip", Ip6tnl = "ip6tnl", Sit = "sit", Vti = "vti", Vti6 = "vti6",
        Xfrm = "xfrm", Wireguard = "wireguard", Tun = "tun", Dummy = "dummy", Ifb = "ifb", Vrf = "vrf",
        Openvswitch = "openvswitch", Other = "other", Unknown = "unknown",
    }
}

impl DeviceKind {
    const IFF_LOOPBACK: u32 = 1 << 3;

    fn of(info_kind: Option<&[u8]>, flags: u32) -> Self {
        match info_kind {
            None if flags & Self::IFF_LOOPBACK != 0 => Self::Loopback,
            None => Self::Physical,
            Some(kind) => {
                let kind = kind.strip_suffix(&[0]).unwrap_or(kind);
                Self::ALL.iter().copied().find(|k| k.text().as_bytes() == kind).unwrap_or(Self::Other)
            }
        }
    }
}

impl<'de> Deserialize<'de> for DeviceKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        Self::ALL.iter().copied().find(|k| k.text() == text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "\"{text}\" is not a kind of device; write physical or veth, say"
            ))
        })
    }
}

impl Serialize for DeviceKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl JsonSchema for DeviceKind {
    fn schema_name() -> Cow<'static, str> {
        "DeviceKind".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let values: Vec<&str> = Self::ALL.iter().map(|k| k.text()).collect();
        json_schema!({ "type": "string", "enum": values })
    }
}

/// One device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: DeviceKind,
    /// The device that it is enslaved to; 0 for none.
    master: u32,
    /// Whether its traffic is counted again by the device without a kind that it is enslaved to: the virtual
    /// function below a Hyper-V netvsc or a net_failover device.
    pub counted_by_master: bool,
}

/// The devices of one namespace at one moment.
#[derive(Debug, Clone)]
pub struct Links {
    by_name: Vec<Link>,
    read: Instant,
}

impl Links {
    fn new(mut links: Vec<Link>) -> Self {
        links.sort_unstable_by_key(|l| l.name);
        for i in 0..links.len() {
            let master = links[i].master;
            links[i].counted_by_master = links[i].kind == DeviceKind::Physical
                && master != 0
                && links.iter().any(|l| l.index == master && l.kind == DeviceKind::Physical);
        }
        Self { by_name: links, read: Instant::now() }
    }

    /// The device with this name.
    pub fn named(&self, name: Name) -> Option<&Link> {
        self.by_name.binary_search_by_key(&name, |l| l.name).ok().map(|i| &self.by_name[i])
    }

    /// The device with this index.
    pub fn at(&self, index: u32) -> Option<&Link> {
        self.by_name.iter().find(|l| l.index == index)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether it is time to look again. Namespaces that were found together are not all due together.
    pub(super) fn is_due(&self, key: NetnsKey, now: Instant) -> bool {
        now.duration_since(self.read) > Duration::from_secs(60 + key.0 % 16)
    }
}

/// Asks for all devices of the socket's namespace, without their statistics.
pub(super) fn dump(netlink: &mut Netlink, buf: &mut Vec<u8>) -> Result<Links, CollectError> {
    const RTM_GETLINK: u16 = 18;
    const RTM_NEWLINK: u16 = 16;
    const IFLA_EXT_MASK: u16 = 29;
    const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
    let mut request = [0; 24];
    request[16..18].copy_from_slice(&8u16.to_ne_bytes());
    request[18..20].copy_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    request[20..24].copy_from_slice(&RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    let links = netlink.ask(
        "RTM_GETLINK",
        Answer::Dump,
        RTM_GETLINK,
        &request,
        buf,
        |links: &mut Vec<Link>, kind, payload| {
            if kind == RTM_NEWLINK {
                links.push(parse(payload)?);
            }
            Ok(())
        },
    )?;
    Ok(Links::new(links))
}

/// One RTM_NEWLINK: `struct ifinfomsg` and attributes.
fn parse(payload: &[u8]) -> Result<Link, CollectError> {
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    let bad = |why: &str| CollectError::Parse { what: "netlink RTM_NEWLINK".into(), why: why.into() };
    let word = |bytes: &[u8]| bytes.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
    let (head, rest) = payload.split_at_checked(16).ok_or_else(|| bad("is shorter than its header"))?;
    let index = word(&head[4..]).unwrap_or(0);
    let flags = word(&head[8..]).unwrap_or(0);
    let (mut name, mut info_kind, mut master) = (None, None, 0);
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => name = Name::new(value),
            IFLA_MASTER => master = word(value).unwrap_or(0),
            IFLA_LINKINFO => {
                info_kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND).map(|(_, v)| v);
            }
            _ => {}
        }
    }
    let name = name.ok_or_else(|| bad("has no name of 1 to 15 bytes"))?;
    Ok(Link { index, name, kind: DeviceKind::of(info_kind, flags), master, counted_by_master: false })
}

/// What a device is like at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Set up and able to carry packets: IFF_UP and IFF_RUNNING.
    pub up: bool,
    /// The largest packet, in bytes, without the link layer's header.
    pub mtu: u32,
}

impl Netlink {
    /// Asks one device of the socket's namespace. Takes no lock in the kernel, unlike a dump.
    ///
    /// `None` where there is no device of this name any more.
    pub fn device(&self, name: Name) -> io::Result<Option<Now>> {
        let Some(flags) = ask(self.socket(), libc::SIOCGIFFLAGS, name)? else { return Ok(None) };
        let Some(mtu) = ask(self.socket(), libc::SIOCGIFMTU, name)? else { return Ok(None) };
        // The flags are a short, the MTU an int.
        let flags = i32::from(i16::from_ne_bytes([flags[0], flags[1]]));
        let wanted = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(Some(Now { up: flags & wanted == wanted, mtu: u32::from_ne_bytes(mtu) }))
    }
}

/// One request about a device: the first bytes of the union in `struct ifreq`.
fn ask(socket: BorrowedFd<'_>, request: libc::Ioctl, name: Name) -> io::Result<Option<[u8; 4]>> {
    /// `struct ifreq`: the name and a union of at most 24 bytes.
    #[repr(C, align(8))]
    struct Ifreq {
        name: [u8; 16],
        value: [u8; 24],
    }
    let mut ifreq = Ifreq { name: name.0, value: [0; 24] };
    // SAFETY: both requests read and write one struct ifreq, which is as long and as aligned as the kernel's (40
    // bytes on 64 bit, 32 on 32 bit) and lives past the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut ifreq) };
    if answer == 0 {
        let [a, b, c, d, ..] = ifreq.value;
        return Ok(Some([a, b, c, d]));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        error => Err(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::netlink::Protocol;
    use super::*;

    /// A table from index, name, kind, flags and master.
    pub(crate) fn links(devices: &[(u32, &str, Option<&str>, u32, u32)]) -> Links {
        let link = |&(index, name, kind, flags, master): &(u32, &str, Option<&str>, u32, u32)| Link {
            index,
            name: Name::new(name.as_bytes()).expect("short"),
            kind: DeviceKind::of(kind.map(str::as_bytes), flags),
            master,
            counted_by_master: false,
        };
        Links::new(devices.iter().map(link).collect())
    }

    /// RTM_NEWLINK of a veth that is enslaved to device 7, without the attributes that are not read.
    fn newlink() -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[4] = 5;
        bytes.extend_from_slice(&[10, 0, 3, 0, b'v', b'e', b't', b'h', b'1', 0, 0, 0]);
        bytes.extend_from_slice(&[8, 0, 10, 0, 7, 0, 0, 0]);
        bytes.extend_from_slice(&[16, 0, 18, 0, 9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_message_gives_index_name_kind_and_master() {
        let link = parse(&newlink()).expect("well formed");
        assert_eq!((link.index, link.name.text().as_ref()), (5, "veth1"));
        assert_eq!((link.kind, link.master), (DeviceKind::Veth, 7));
    }

    #[test]
    fn a_message_cut_anywhere_never_panics() {
        let whole = newlink();
        let name_ends = 26;
        for end in 0..name_ends {
            let error = parse(&whole[..end]).expect_err("no name").to_string();
            assert!(error.contains("RTM_NEWLINK"), "{error}");
        }
        for end in name_ends..whole.len() {
            assert!(parse(&whole[..end]).is_ok(), "{end}");
        }
    }

    #[test]
    fn kinds_are_a_closed_set() {
        assert_eq!(DeviceKind::of(None, 8), DeviceKind::Loopback);
        assert_eq!(DeviceKind::of(None, 0), DeviceKind::Physical);
        assert_eq!(DeviceKind::of(Some(b"wireguard\0"), 0), DeviceKind::Wireguard);
        assert_eq!(DeviceKind::of(Some(b"\xff"), 0), DeviceKind::Other);
    }

    #[test]
    fn names_are_1_to_15_bytes() {
        assert!(Name::new(b"").is_none() && Name::new(b"\0eth0").is_none());
        assert!(Name::new(b"a23456789012345").is_some());
        assert!(Name::new(b"a234567890123456").is_none());
        assert_eq!(Name::new(b"eth0\0\0").expect("short").bytes(), b"eth0");
    }

    #[test]
    fn a_function_below_a_failover_device_is_counted_by_it_and_a_port_of_a_bridge_is_not() {
        let links = links(&[
            (2, "eth0", None, 0, 0),
            (3, "vf0", None, 0, 2),
            (4, "br0", Some("bridge"), 0, 0),
            (5, "eth1", None, 0, 4),
        ]);
        let counted = |name: &[u8]| {
            links.named(Name::new(name).expect("short")).expect("it is there").counted_by_master
        };
        assert!(counted(b"vf0") && !counted(b"eth0") && !counted(b"eth1"));
        assert_eq!(links.at(4).expect("it is there").kind, DeviceKind::Bridge);
        assert!(links.at(9).is_none());
    }

    #[test]
    fn this_machines_loopback_is_found_and_asked() {
        let mut netlink = Netlink::open(Protocol::Route).expect("every kernel has it");
        let links = dump(&mut netlink, &mut Vec::new()).expect("answered");
        let lo = Name::new(b"lo").expect("short");
        assert_eq!(links.named(lo).expect("every namespace has one").kind, DeviceKind::Loopback);
        assert!(netlink.device(lo).expect("answered").expect("it is there").mtu > 0);
        let none = Name::new(b"no-such-device").expect("short");
        assert_eq!(netlink.device(none).expect("answered"), None);
    }

    #[test]
    fn a_table_is_due_after_about_a_minute() {
        let links = links(&[]);
        let after = |seconds| links.read + Duration::from_secs(seconds);
        assert!(!links.is_due(NetnsKey(16), after(60)) && links.is_due(NetnsKey(16), after(61)));
        assert!(!links.is_due(NetnsKey(15), after(75)) && links.is_due(NetnsKey(15), after(76)));
    }

    #[test]
    fn a_table_that_fits_is_given_again_and_one_that_does_not_is_read_anew() {
        let machine = super::super::testing::Machine::live();
        let (_, ns) = machine.topology.iter().next().expect("that of this process");
        let netns = machine.host.netns(ns.key).expect("it is open");
        let mut buf = Vec::new();
        let mut ask = |fits: bool| netns.links(&mut buf, |_| fits).expect("answered").expect("it is live");
        let first = ask(true);
        assert!(std::sync::Arc::ptr_eq(&first, &ask(true)));
        assert!(!std::sync::Arc::ptr_eq(&first, &ask(false)));
    }
}
