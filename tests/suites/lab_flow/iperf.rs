//! What iperf3 says that it sent and received.

use std::time::Duration;

use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Pair, Running, needs_programs, needs_root, shell, truth, until};
use serde_json::Value;

use super::{PACKETS, SIDES, TUPLE_BYTES, TUPLE_PACKETS, bare, tuples};

/// With the ports of clients.
const PORTS: &str = "[{name: flow, args: {fold_client_ports: false}}]";
/// iperf3's client sends as many bytes before each stream.
const COOKIE: u64 = 37;

/// Runs iperf3 between the two sides and gives what it tells.
fn iperf(pair: &Pair, b: &str, options: &str) -> Value {
    let mut server = pair.b.mortal("iperf3");
    server.args(["--server", "--one-off", "--bind", b]).stdout(std::process::Stdio::null());
    let mut server = Running::start(&mut server);
    until("iperf3 listens", Duration::from_secs(5), || {
        pair.b.run("ss -H -ltn").contains(":5201").then_some(())
    });
    let mut client = pair.a.command("iperf3");
    client.args(["--client", b, "--json"]).args(options.split_whitespace());
    let told = shell::run(&mut client);
    server.wait(Duration::from_secs(10)).expect("the server serves one client");
    serde_json::from_str(&told).expect("iperf3 prints JSON")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn iperf_and_the_agent_agree_on_the_bytes_of_its_stream() {
    needs_root!();
    needs_programs!("iperf3");
    for (_, b) in SIDES {
        let b = bare(b);
        for reverse in [false, true] {
            let pair = Pair::new("iperf");
            let (agent, _bystander, before) = watch(PORTS, &pair);
            let told = iperf(&pair, b, if reverse { "-n 20M --reverse" } else { "-n 20M" });
            let stream = &told["start"]["connected"][0];
            let port = number(&stream["local_port"]).to_string();
            let local = stream["local_host"].as_str().expect("an address").to_owned();
            let ends = &told["end"]["streams"][0];
            let sent = number(&ends["sender"]["bytes"]);
            let read = number(&ends["receiver"]["bytes"]);
            assert!(sent >= 20 << 20, "{told}");

            let after = agent.scrape();
            let delta = between(&before, &after);
            let (client, server) = ((local.as_str(), port.as_str()), (b, "5201"));
            let (up, down) = tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", client, server);
            let (back, arrived) = tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", server, client);
            // The side that reads closes first, so the last that was written may never leave, or never arrive.
            let (left, came) = if reverse {
                assert_eq!((up, arrived), (COOKIE, COOKIE), "{b} reverse");
                (back, down)
            } else {
                assert_eq!((down, back), (0, 0), "{b}");
                (up - COOKIE, arrived - COOKIE)
            };
            assert!(read <= came && came <= left && left <= sent, "{read} {came} {left} {sent}");
            agent.stop();
        }
    }
}

#[test]
fn iperf_and_the_agent_agree_on_datagrams() {
    needs_root!();
    needs_programs!("iperf3");
    let pair = Pair::v4("iperf-udp");
    let (agent, _bystander, before) = watch(PORTS, &pair);
    let told = iperf(&pair, "10.9.0.2", "--udp -b 100M -n 5M -l 1000");
    let port = number(&told["start"]["connected"][0]["local_port"]).to_string();
    let sent = &told["end"]["streams"][0]["udp"];
    let (bytes, packets) = (number(&sent["bytes"]), number(&sent["packets"]));
    let after = agent.scrape();
    let delta = between(&before, &after);
    let (client, server) = (("10.9.0.1", port.as_str()), ("10.9.0.2", "5201"));
    // Client and server greet each other with a datagram of four bytes before.
    assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "udp", client, server), (bytes + 4, 4));
    assert_eq!(tuples(&delta, &pair.a, TUPLE_PACKETS, "udp", client, server), (packets + 1, 1));
    let taken = truth::mib(&pair.b, "snmp", "Udp", "InDatagrams");
    assert_eq!(delta.grew(&pair.b, PACKETS, &[("protocol", "udp"), ("direction", "receive")]), taken);
    agent.stop();
}
