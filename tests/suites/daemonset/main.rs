//! The agent as Kubernetes runs it: its own image, in a container of a real sandbox, with the capabilities, mounts and
//! configuration of the rendered DaemonSet, beside other pods whose faults it tells.

mod capabilities;
mod edits;
mod fifty;
mod node;
mod seccomp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netsonde_tests::containerd::Sandbox;
use netsonde_tests::manifests::{Manifests, rights, strings};
use netsonde_tests::wait::until_true;
use netsonde_tests::{Page, needs_programs, needs_root, note, until};
use node::{Agent, Change, inside, labels, pods, runtime};

const SOON: Duration = Duration::from_secs(5);

/// The value of a pod's series with these labels, 0 where it is not there.
fn count(page: &Page, pod: &Sandbox, name: &str, more: &[(&str, &str)]) -> u64 {
    let (namespace, pod) = labels(pod);
    let own = [("target_namespace", namespace), ("target_pod", pod), ("target_node", "node-1")];
    let sum = page.sum(name, &[&own, more].concat());
    format!("{sum}").parse().unwrap_or_else(|_| panic!("{name} is {sum}"))
}

/// Sends datagrams to a port where nobody listens: each is a drop with the reason NO_SOCKET in the other pod.
fn knock(from: &Sandbox, to: IpAddr, times: usize) {
    let address = SocketAddr::new(to, 6001);
    inside(from, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        for _ in 0..times {
            socket.send_to(&[7; 100], address).expect("a datagram can be sent");
        }
    });
}

/// Opens connections to a port where nobody listens: each is reset.
fn call(from: &Sandbox, to: IpAddr, times: usize) {
    let address = SocketAddr::new(to, 7001);
    inside(from, || {
        for _ in 0..times {
            TcpStream::connect(address).expect_err("nobody listens there");
        }
    });
}

/// The capabilities of a process, by the names of those that the test knows; others by number.
fn effective(pid: u32) -> Vec<String> {
    let known = BTreeMap::from([
        (2, "DAC_READ_SEARCH"),
        (12, "NET_ADMIN"),
        (19, "SYS_PTRACE"),
        (21, "SYS_ADMIN"),
        (34, "SYSLOG"),
        (38, "PERFMON"),
        (39, "BPF"),
    ]);
    let mask = u64::from_str_radix(&of_status(pid, "CapEff"), 16).expect("a mask");
    let set = (0..64).filter(|bit| mask >> bit & 1 == 1);
    let mut names: Vec<_> =
        set.map(|bit| known.get(&bit).map_or(bit.to_string(), ToString::to_string)).collect();
    names.sort();
    names
}

fn of_status(pid: u32, key: &str) -> String {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("{path} has no {key}")).trim().to_owned()
}

/// The most memory that the agent's cgroup ever held, the kernel's for it with it.
fn peak(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/cgroup");
    let groups = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let find = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (controllers, group) = (parts.nth(1)?, parts.next()?);
        match controllers {
            "memory" => Some(format!("/sys/fs/cgroup/memory{group}/memory.max_usage_in_bytes")),
            "" => Some(format!("/sys/fs/cgroup{group}/memory.peak")),
            _ => None,
        }
    };
    let mut files = groups.lines().filter_map(find);
    let read = files.find_map(|file| std::fs::read_to_string(file).ok());
    read.and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(|| panic!("no memory is counted for {groups}"))
}

#[test]
fn the_daemonset_runs_every_default_probe_and_tells_the_faults_of_pods() {
    needs_root!();
    needs_programs!("containerd", "runc", "jq");
    let manifests = Manifests::kustomize("base");
    let containerd = runtime(&manifests);
    let agent = Agent::start(&containerd, &manifests, &Change::default());
    assert_eq!(
        effective(agent.pid()),
        manifests.capabilities(),
        "the container has exactly the manifest's rights"
    );
    assert_eq!(of_status(agent.pid(), "NoNewPrivs"), "1");
    assert_eq!(of_status(agent.pid(), "Seccomp"), "2");
    all_probes_run(&agent);

    let [(web, address), (cart, _), (idle, _)] = pods(&containerd, ["web-0", "cart-0", "idle-0"]);
    agent.find(&[&web, &cart, &idle]);
    let before = agent.scrape();
    knock(&cart, address, 23);
    call(&cart, address, 5);
    let after = agent.scrape();
    let grew = |pod: &Sandbox, name: &str, more: &[(&str, &str)]| {
        count(&after, pod, name, more) - count(&before, pod, name, more)
    };
    assert_eq!(grew(&web, "netsonde_udp_no_ports_total", &[]), 23);
    assert_eq!(grew(&cart, "netsonde_udp_out_datagrams_total", &[]), 23);
    assert_eq!(
        grew(&web, "netsonde_packetloss_drops_total", &[("reason", "NO_SOCKET"), ("protocol", "udp")]),
        23
    );
    assert_eq!(grew(&web, "netsonde_tcpreset_sent_total", &[]), 5);
    assert_eq!(grew(&cart, "netsonde_tcp_attempt_fails_total", &[]), 5);
    for name in
        ["netsonde_udp_no_ports_total", "netsonde_packetloss_drops_total", "netsonde_tcpreset_sent_total"]
    {
        assert_eq!(grew(&idle, name, &[]), 0, "{name} of a pod that did nothing");
    }

    let (namespace, pod) = labels(&web);
    let query = format!("namespace={namespace}&pod={pod}&type=PacketLoss");
    // The table of addresses may be some seconds old.
    let event = until("a drop is told, with its peer", 3 * SOON, || {
        knock(&cart, address, 1);
        agent.events(&query).pop().filter(|event| event["peer_pod"].is_string())
    });
    for (field, value) in [
        ("reason", "NO_SOCKET"),
        ("namespace", namespace),
        ("pod", pod),
        ("peer_namespace", labels(&cart).0),
        ("peer_pod", labels(&cart).1),
        ("node", "node-1"),
    ] {
        assert_eq!(event[field], value, "{field} of {event:#}");
    }
    // What the ConfigMap asks for: events on stdout, which the runtime writes down.
    until_true("the drop is in the container's log", SOON, || {
        agent.log().lines().any(|line| line.contains("\"PacketLoss\"") && line.contains(&address.to_string()))
    });
    note(&format!("the container's memory at its peak: {:.1} MB", peak(agent.pid()) as f64 / 1e6));
    agent.stop(&manifests);
}

/// Every probe that is on by default runs, and no hook of it was refused for a right.
fn all_probes_run(agent: &Agent<'_>) {
    for probe in strings(&rights()["default"]) {
        let entry = agent.probe(&probe);
        assert_eq!(entry["state"], "running", "{entry:#}");
        assert!(entry["last_error"].is_null(), "{entry:#}");
        for hook in entry["hooks"].as_array().expect("hooks") {
            assert_ne!(hook["state"], "failed", "{probe}: {hook:#}");
            assert!(!hook["how"].as_str().unwrap_or_default().contains("CAP_"), "{probe}: {hook:#}");
        }
    }
    // Processes come and go meanwhile.
    until_true("no namespace and no process is hidden from it", SOON, || {
        let unreadable = &agent.status()["unreadable"];
        assert_eq!(unreadable["namespaces"], 0, "{unreadable:#}");
        unreadable["processes"] == hidden_from_root()
    });
}

/// How many processes of this machine do not tell even root with all rights their namespace: those that have ended and
/// wait for their parent, and the first where the machine is itself a container.
fn hidden_from_root() -> u64 {
    let processes = std::fs::read_dir("/proc").expect("this machine has a /proc").flatten();
    let processes = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    processes.filter(|entry| std::fs::read_link(entry.path().join("ns/net")).is_err()).count() as u64
}
