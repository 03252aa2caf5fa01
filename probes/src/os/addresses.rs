//! The addresses of a namespace that others can reach: not those of the loopback or of one link only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netsonde_framework::CollectError;

use super::netlink::{Answer, Netlink, attributes};

/// Asks for all addresses of the socket's namespace.
pub(super) fn dump(netlink: &mut Netlink) -> Result<Vec<IpAddr>, CollectError> {
    const RTM_GETADDR: u16 = 22;
    const RTM_NEWADDR: u16 = 20;
    let mut buf = Vec::new();
    netlink.ask(
        "RTM_GETADDR",
        Answer::Dump,
        RTM_GETADDR,
        &[0; 8],
        &mut buf,
        |addresses: &mut Vec<IpAddr>, kind, payload| {
            if kind == RTM_NEWADDR {
                addresses.extend(parse(payload));
            }
            Ok(())
        },
    )
}

/// One RTM_NEWADDR: `struct ifaddrmsg` (family, prefix length, flags, scope, index) and attributes.
fn parse(payload: &[u8]) -> Option<IpAddr> {
    const RT_SCOPE_LINK: u8 = 253;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let (head, rest) = payload.split_at_checked(8)?;
    let (family, scope) = (head[0], head[3]);
    if scope >= RT_SCOPE_LINK {
        return None;
    }
    // On a point-to-point device IFA_ADDRESS is the other end's; IFA_LOCAL, where it is there, is ours.
    let of = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let value = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::Protocol;
    use super::*;

    fn message(family: u8, scope: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![family, 24, 0, scope, 2, 0, 0, 0];
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).expect("short");
            message.extend(length.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(*value);
        }
        message
    }

    #[test]
    fn addresses_that_others_can_reach_are_taken() {
        let v4 = message(2, 0, &[(1, &[10, 0, 0, 9]), (2, &[10, 0, 0, 1])]);
        assert_eq!(parse(&v4), Some("10.0.0.1".parse().expect("an address")), "ours, not the other end's");
        let mut bytes = [0; 16];
        (bytes[0], bytes[15]) = (0xfd, 1);
        assert_eq!(parse(&message(10, 0, &[(1, &bytes)])), Some("fd00::1".parse().expect("an address")));
        assert_eq!(parse(&message(2, 254, &[(2, &[127, 0, 0, 1])])), None, "loopback");
        assert_eq!(parse(&message(10, 253, &[(1, &bytes)])), None, "link-local");
        assert_eq!(parse(&message(2, 0, &[(2, &[10, 0])])), None);
        assert_eq!(parse(&[2, 24]), None);
    }

    #[test]
    fn the_kernel_answers() {
        let mut netlink = Netlink::open(Protocol::Route).expect("every kernel has it");
        let addresses = dump(&mut netlink).expect("an answer");
        assert!(addresses.iter().all(|a| !a.is_loopback()), "{addresses:?}");
    }
}
