//! `sock`: sockets in use for each namespace, and the socket memory of the whole machine.

mod metrics;
mod parse;

use netsonde_framework::label::Family;
use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::os::{Host, NetFile, Netns};
use metrics::Protocol;
use parse::Sockstat;

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "sock",
        aliases: &[],
        about: "Sockets in use, TIME_WAIT, orphans and socket memory",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

struct Sock {
    host: Host,
    page: i64,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    let page = i64::try_from(procfs::page_size()).unwrap_or(4096);
    Ok(Box::new(Sock { host: host.clone(), page, buf: Vec::new() }))
}

impl Probe for Sock {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let host = self.host.clone();
        host.each(view, |id, ns, netns| {
            let v4 = self.read(netns, Family::Ipv4);
            let v6 = self.read(netns, Family::Ipv6);
            if let (Ok(v4), Ok(v6)) = (&v4, &v6) {
                let tcp = |stat: &Option<Sockstat>| stat.and_then(|s| s.inuse[Protocol::Tcp as usize]);
                if let Some(inuse) = tcp(v4) {
                    out.push(&metrics::TCP_INUSE, id, (), inuse + tcp(v6).unwrap_or(0));
                }
            }
            let mut failed = None;
            for (family, read) in [(Family::Ipv4, v4), (Family::Ipv6, v6)] {
                match read {
                    Ok(Some(stat)) => {
                        push(&stat, family, id, out);
                        if ns.is_host() {
                            self.push_machine(&stat, id, out);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }
}

impl Sock {
    fn read(&mut self, netns: &Netns, family: Family) -> Result<Option<Sockstat>, CollectError> {
        let file = match family {
            Family::Ipv4 => NetFile::Sockstat,
            Family::Ipv6 => NetFile::Sockstat6,
        };
        match netns.read(file, &mut self.buf)? {
            Some(text) => Sockstat::parse(family, text).map(Some),
            None => Ok(None),
        }
    }

    /// The fields that are of the whole machine although the file is there in every namespace.
    fn push_machine(&self, stat: &Sockstat, id: NsId, out: &mut Samples) {
        if let Some(orphan) = stat.orphan {
            out.push(&metrics::TCP_ORPHAN, id, (), orphan);
        }
        if let Some(alloc) = stat.alloc {
            out.push(&metrics::TCP_ALLOC, id, (), alloc);
        }
        for (protocol, pages) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(stat.mem) {
            if let Some(pages) = pages {
                out.push(&metrics::MEM, id, protocol, pages.saturating_mul(self.page));
            }
        }
        if let Some(pages) = stat.mem[Protocol::Tcp as usize] {
            out.push(&metrics::TCP_MEM_PAGES, id, (), pages);
        }
    }
}

/// The fields of one namespace.
fn push(stat: &Sockstat, family: Family, id: NsId, out: &mut Samples) {
    if let Some(used) = stat.used {
        out.push(&metrics::USED, id, (), used);
    }
    for (protocol, inuse) in Protocol::ALL.iter().zip(stat.inuse) {
        if let Some(inuse) = inuse {
            out.push(&metrics::INUSE, id, (*protocol, family), inuse);
        }
    }
    if let Some(inuse) = stat.frag_inuse {
        out.push(&metrics::FRAG_INUSE, id, family, inuse);
    }
    if let Some(memory) = stat.frag_memory {
        out.push(&metrics::FRAG_MEMORY, id, family, memory);
    }
    if let Some(tw) = stat.tw {
        out.push(&metrics::TCP_TW, id, (), tw);
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Value;
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    const SOCKSTAT: &str = "sockets: used 290\nTCP: inuse 5 orphan 1 tw 2 alloc 7 mem 184\nUDP: inuse 3 mem 9\nUDPLITE: inuse 0\nRAW: inuse 4\nFRAG: inuse 6 memory 8192\n";
    const SOCKSTAT6: &str =
        "TCP6: inuse 11\nUDP6: inuse 12\nUDPLITE6: inuse 13\nRAW6: inuse 14\nFRAG6: inuse 15 memory 16\n";

    fn two_namespaces() -> Machine {
        let mut machine = Machine::frozen();
        machine.process(2, 1002);
        machine.rescan();
        for pid in [1, 2] {
            machine.file(&format!("{pid}/net/sockstat"), SOCKSTAT);
            machine.file(&format!("{pid}/net/sockstat6"), SOCKSTAT6);
        }
        machine
    }

    #[test]
    fn every_namespace_has_its_own_sockets() {
        let mut machine = two_namespaces();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        for ns in [machine.ns(1001), machine.ns(1002)] {
            for (name, labels, value) in [
                ("sock_used", "", 290),
                ("sock_inuse", "protocol=\"tcp\",family=\"ipv4\"", 5),
                ("sock_inuse", "protocol=\"tcp\",family=\"ipv6\"", 11),
                ("sock_inuse", "protocol=\"raw\",family=\"ipv6\"", 14),
                ("sock_frag_memory_bytes", "family=\"ipv4\"", 8192),
                ("sock_frag_inuse", "family=\"ipv6\"", 15),
                ("sock_tcp_tw", "", 2),
                ("sock_tcp_inuse", "", 16),
            ] {
                assert_eq!(samples.value(name, ns, labels), Some(Value::I64(value)), "{name} {labels}");
            }
        }
    }

    #[test]
    fn what_is_of_the_whole_machine_stands_on_the_host_row_only() {
        let mut machine = two_namespaces();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        let page = i64::try_from(procfs::page_size()).expect("small");
        let (host, pod) = (machine.ns(1001), machine.ns(1002));
        for (name, labels, value) in [
            ("sock_tcp_orphan", "", 1),
            ("sock_tcp_alloc", "", 7),
            ("sock_mem_bytes", "protocol=\"tcp\"", 184 * page),
            ("sock_mem_bytes", "protocol=\"udp\"", 9 * page),
            ("sock_tcp_mem_pages", "", 184),
        ] {
            assert_eq!(samples.value(name, host, labels), Some(Value::I64(value)), "{name}");
            assert_eq!(samples.value(name, pod, labels), None, "{name}");
        }
    }

    #[test]
    fn the_five_reference_names_are_there() {
        let mut names: Vec<_> = metrics::ALL.iter().filter_map(|def| def.reference).map(|r| r.name).collect();
        names.sort_unstable();
        let wanted = ["alloc", "inuse", "mem", "orphan", "tw"].map(|name| format!("kubeskoop_sock_{name}"));
        assert_eq!(names, wanted);
    }

    #[test]
    fn where_ipv6_is_off_only_ipv4_has_series() {
        let mut machine = two_namespaces();
        machine.remove("2/net/sockstat6");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("an absent file is no failure");
        let pod = machine.ns(1002);
        assert_eq!(samples.value("sock_tcp_inuse", pod, ""), Some(Value::I64(5)));
        assert_eq!(samples.value("sock_inuse", pod, "protocol=\"tcp\",family=\"ipv6\""), None);
    }

    #[test]
    fn a_broken_file_is_named_and_costs_only_what_it_holds() {
        let mut machine = two_namespaces();
        machine.file("2/net/sockstat6", "TCP6: inuse 11\nUDP6: inu");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("cut off").to_string();
        assert!(error.contains("1 namespaces") && error.contains("/proc/net/sockstat6 line 2"), "{error}");
        let (host, pod) = (machine.ns(1001), machine.ns(1002));
        assert_eq!(samples.value("sock_tcp_inuse", host, ""), Some(Value::I64(16)));
        assert_eq!(samples.value("sock_inuse", pod, "protocol=\"tcp\",family=\"ipv4\""), Some(Value::I64(5)));
        assert_eq!(
            samples.value("sock_tcp_inuse", pod, ""),
            None,
            "a sum of which a part is missing is no sum"
        );
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({}));
        let _open = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let (host, _) = machine.topology.host().expect("the host is there");
        let used = samples.value("sock_used", host, "").expect("there").as_f64();
        assert!(used >= 1.0, "{used}");
        assert!(samples.value("sock_mem_bytes", host, "protocol=\"tcp\"").is_some());
    }
}
