//! Pods of other nodes in events: their names come from the API server, go when the pod goes, and are never guessed.

use std::time::Duration;

use netsonde_tests::apiserver::{ApiServer, pod};
use netsonde_tests::events::{events, text};
use netsonde_tests::pki::Authority;
use netsonde_tests::{Agent, Netns, Pair, needs_programs, needs_root, until, wait::until_true};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "a token";
/// Of a network for documentation: no namespace of this machine has it.
const FAR: &str = "203.0.113.7";
const FARTHER: &str = "203.0.113.8";

/// An API server, an agent that asks it, and a namespace that may send nothing to port 6000.
struct Lab {
    api: ApiServer,
    agent: Agent,
    ns: Netns,
    other: Netns,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(hint: &str, api: ApiServer, token: &str, ca: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("token"), format!("{token}\n")).expect("written");
        std::fs::write(folder.path().join("ca.crt"), ca).expect("written");
        let Pair { a: ns, b: other } = Pair::v4(hint);
        ns.run("ip route add 203.0.113.0/24 dev eth0");
        ns.nft(
            "table inet lab {
                chain c {
                    type filter hook output priority 0
                    udp dport 6000 drop
                }
            }",
        );
        let lab = Self { agent: Agent::start(&config(&api, &folder, true)), api, ns, other, folder };
        lab.agent.find(lab.ns.name());
        lab
    }

    fn plain(hint: &str) -> Self {
        Self::new(hint, ApiServer::start(TOKEN), TOKEN, b"")
    }

    fn status(&self) -> Value {
        self.agent.status()["cluster"].clone()
    }

    fn until_watched(&self, pods: usize) {
        until(&format!("{pods} pods are known"), SOON, || {
            let status = self.status();
            (status["state"] == "connected" && status["pods"] == pods).then_some(())
        });
    }

    /// What an event tells of a datagram to this address that was just dropped.
    fn drop_to(&self, address: &str) -> Value {
        let query = format!("type=PacketLoss&pod={}", self.ns.name());
        let before = events(&self.agent, &query).len();
        let from = self.ns.udp("10.9.0.1:0");
        // Of many alike not each is told, so another one is sent after a while.
        let event = until("the loss is told", SOON, || {
            let sent = from.send_to(&[7; 100], format!("{address}:6000"));
            assert!(sent.is_err(), "it is dropped on its way out");
            std::thread::sleep(Duration::from_millis(200));
            events(&self.agent, &query).into_iter().nth(before)
        });
        assert_eq!((text(&event, "src"), text(&event, "dst")), ("10.9.0.1", address), "{event:#}");
        event
    }

    /// The peer that the next event to this address names.
    fn peer(&self, address: &str) -> Option<String> {
        let event = self.drop_to(address);
        let part = |key: &str| event.get(key).map(|v| v.as_str().expect("a text").to_owned());
        let (namespace, pod) = (part("peer_namespace"), part("peer_pod"));
        assert_eq!(namespace.is_some(), pod.is_some(), "{event:#}");
        Some(format!("{}/{}", namespace?, pod?))
    }

    fn until_peer(&self, address: &str, peer: Option<&str>) {
        until_true(&format!("the peer is {peer:?}"), SOON, || self.peer(address).as_deref() == peer);
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.agent.scrape().count(&format!("netsonde_cluster_{name}"), labels)
    }

    fn lists(&self) -> u64 {
        self.status()["lists"].as_u64().expect("a number")
    }
}

fn config(api: &ApiServer, folder: &tempfile::TempDir, on: bool) -> String {
    let folder = folder.path().display();
    format!(
        "node_name: lab\nprobes: [packetloss]\ndiscovery:\n  cluster_peers: {on}\n  cluster_server: {}\n  \
         cluster_token_file: {folder}/token\n  cluster_ca_file: {folder}/ca.crt\n",
        api.url()
    )
}

#[test]
fn the_peer_on_another_node_has_a_name_while_it_lives() {
    needs_root!();
    needs_programs!("nft");
    let lab = Lab::plain("cluster-life");
    lab.until_watched(0);
    assert_eq!(lab.peer(FAR), None);
    lab.api.put(pod("pending", &[], &json!({"status": {"phase": "Pending", "podIPs": null}})));
    lab.api.put(pod("cart-0", &[FAR, "fd00::7"], &json!({})));
    lab.until_watched(1);
    assert_eq!(lab.peer(FAR).as_deref(), Some("shop/cart-0"));
    assert_eq!(lab.peer(FARTHER), None);

    lab.api.put(pod("cart-0", &[FARTHER], &json!({})));
    lab.until_peer(FARTHER, Some("shop/cart-0"));
    assert_eq!(lab.peer(FAR), None, "it has another address now");

    // An address of two is nobody's, and one that has ended has none.
    lab.api.put(pod("cart-1", &[FARTHER], &json!({})));
    lab.until_watched(2);
    assert_eq!(lab.peer(FARTHER), None);
    lab.api.put(pod("cart-0", &[FARTHER], &json!({"status": {"phase": "Succeeded"}})));
    lab.until_peer(FARTHER, Some("shop/cart-1"));
    lab.api.delete("cart-1");
    lab.until_watched(0);
    assert_eq!(lab.peer(FARTHER), None);

    // The node's own address belongs to many.
    lab.api.put(pod("proxy", &[FAR], &json!({"spec": {"hostNetwork": true}})));
    lab.api.put(pod("cart-2", &[FARTHER], &json!({})));
    lab.until_watched(1);
    assert_eq!(lab.peer(FAR), None);
    assert_eq!((lab.metric("watch_connected", &[]), lab.metric("pods", &[])), (1, 1));
    assert_eq!((lab.metric("lists_total", &[]), lab.metric("refused_pods_total", &[])), (1, 0));
    assert!(lab.agent.scrape().value("netsonde_cluster_age_seconds", &[]) < 30.0);
    lab.agent.stop();
}

#[test]
fn what_has_the_address_on_this_node_wins() {
    needs_root!();
    needs_programs!("nft");
    let lab = Lab::plain("cluster-local");
    // A way of its own, so that no other test's namespaces have it.
    let number = lab.ns.inode() & 0xffff;
    let address = format!("198.51.{}.{}", number >> 8, number & 255);
    lab.ns.run(&format!("ip route add {address}/32 dev eth0"));
    lab.api.put(pod("cart-0", &[&address], &json!({})));
    lab.until_watched(1);
    lab.until_peer(&address, Some("shop/cart-0"));
    lab.other.run(&format!("ip addr add {address}/32 dev eth0"));
    lab.until_peer(&address, Some(&format!("netns/{}", lab.other.name())));
    lab.agent.stop();
}

#[test]
fn a_list_of_many_pages_is_taken_whole() {
    needs_root!();
    needs_programs!("nft");
    let api = ApiServer::start(TOKEN);
    api.pages_of(7);
    for n in 0..50 {
        api.put(pod(&format!("cart-{n}"), &[&format!("203.0.113.{}", 100 + n)], &json!({})));
    }
    let lab = Lab::new("cluster-pages", api, TOKEN, b"");
    lab.until_watched(50);
    assert_eq!(lab.peer("203.0.113.100").as_deref(), Some("shop/cart-0"));
    assert_eq!(lab.peer("203.0.113.149").as_deref(), Some("shop/cart-49"));
    let requests = lab.api.requests();
    assert_eq!(requests.iter().filter(|path| path.contains("limit=")).count(), 8, "{requests:#?}");
    lab.agent.stop();
}

#[test]
fn a_cut_connection_goes_on_where_it_was_and_a_version_that_is_too_old_is_listed_again() {
    needs_root!();
    needs_programs!("nft");
    let lab = Lab::plain("cluster-cut");
    lab.api.put(pod("cart-0", &[FAR], &json!({})));
    lab.until_watched(1);
    lab.api.bookmark();
    lab.api.cut();
    assert_eq!(lab.peer(FAR).as_deref(), Some("shop/cart-0"), "what is known stays for a while");
    // What happens meanwhile is not missed.
    lab.api.put(pod("cart-1", &[FARTHER], &json!({})));
    lab.api.delete("cart-0");
    lab.until_peer(FARTHER, Some("shop/cart-1"));
    assert_eq!(lab.peer(FAR), None);
    assert_eq!(lab.lists(), 1, "nothing was listed again");
    assert_eq!(lab.metric("failures_total", &[("call", "watch")]), 1);

    // The server no longer has what happened: as an answer, and in the middle of a watch.
    until_true("the watch is open", SOON, || lab.api.watches() == 1);
    lab.api.compact();
    lab.api.cut();
    until("it is listed again", SOON, || (lab.lists() == 2).then_some(()));
    lab.until_watched(1);
    lab.api.say(json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}));
    until("it is listed again", SOON, || (lab.lists() == 3).then_some(()));
    lab.api.delete("cart-1");
    lab.until_peer(FARTHER, None);
    // What cannot be understood is a failure, and no end.
    lab.api.say(json!({"type": "NEW", "object": {}}));
    until("it is told", SOON, || (lab.metric("failures_total", &[("call", "watch")]) >= 3).then_some(()));
    lab.api.put(pod("cart-2", &[FAR], &json!({})));
    lab.until_peer(FAR, Some("shop/cart-2"));
    lab.agent.stop();
}

#[test]
fn a_token_that_is_not_accepted_is_told_and_a_new_one_is_taken() {
    needs_root!();
    needs_programs!("nft");
    let api = ApiServer::start(TOKEN);
    api.put(pod("cart-0", &[FAR], &json!({})));
    let lab = Lab::new("cluster-token", api, "another token", b"");
    let why = |part: &str| {
        until(&format!("/status tells {part}"), SOON, || {
            let status = lab.status();
            status["last_error"].as_str().is_some_and(|why| why.contains(part)).then_some(())
        });
    };
    why("list: the API server answers 401: Unauthorized; the token is not accepted");
    assert_eq!(lab.status()["state"], "not connected");
    assert_eq!(lab.metric("watch_connected", &[]), 0);
    assert!(lab.metric("failures_total", &[("call", "list")]) >= 1);
    assert_eq!(lab.peer(FAR), None, "the agent goes on");

    lab.api.refuse(Some((403, "pods is forbidden")));
    std::fs::write(lab.folder.path().join("token"), TOKEN).expect("written");
    why("403: pods is forbidden; the service account must be allowed to list and watch pods");
    std::fs::remove_file(lab.folder.path().join("token")).expect("it is there");
    why("settings: cannot read");
    std::fs::write(lab.folder.path().join("token"), TOKEN).expect("written");
    lab.api.refuse(None);
    until_true("the pods are watched", SOON, || lab.status()["state"] == "connected");
    assert_eq!(lab.peer(FAR).as_deref(), Some("shop/cart-0"));
    assert!(lab.status()["last_error"].is_null());
    let log = lab.agent.log();
    assert!(!log.contains(TOKEN), "no token is logged: {log}");
    lab.agent.stop();
}

#[test]
fn it_is_off_by_default_and_can_be_turned_on_and_off() {
    needs_root!();
    needs_programs!("nft");
    let lab = Lab::plain("cluster-off");
    lab.api.put(pod("cart-0", &[FAR], &json!({})));
    lab.until_watched(1);
    assert_eq!(lab.peer(FAR).as_deref(), Some("shop/cart-0"));
    lab.agent.write_config(&config(&lab.api, &lab.folder, false));
    until_true("nobody is asked", SOON, || {
        // Who no longer listens is noticed when something is told.
        lab.api.bookmark();
        lab.status().is_null() && lab.api.watches() == 0
    });
    assert_eq!(lab.peer(FAR), None);
    let page = lab.agent.scrape();
    assert!(!page.samples.iter().any(|s| s.name.starts_with("netsonde_cluster_")), "absent where it is off");
    lab.agent.write_config(&config(&lab.api, &lab.folder, true));
    lab.until_watched(1);
    assert_eq!(lab.peer(FAR).as_deref(), Some("shop/cart-0"));
    assert_eq!(lab.metric("lists_total", &[]), 2, "counts go on");
    lab.agent.write_config("node_name: lab\nprobes: [packetloss]\n");
    until_true("nobody is asked", SOON, || lab.status().is_null());
    lab.agent.stop();
}

#[test]
fn the_api_server_must_be_the_one_that_the_authority_has_signed() {
    needs_root!();
    needs_programs!("nft", "openssl");
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let pair = ours.sign("apiserver");
    let api = ApiServer::start_tls(TOKEN, &pair.cert, &pair.key);
    api.put(pod("cart-0", &[FAR], &json!({})));
    let ca = |of: &Authority| std::fs::read(of.ca()).expect("a certificate");
    let lab = Lab::new("cluster-tls", api, TOKEN, &ca(&other));
    until("the certificate is refused", SOON, || {
        let status = lab.status();
        status["last_error"].as_str().is_some_and(|why| why.contains("UnknownIssuer")).then_some(())
    });
    assert!(lab.api.requests().is_empty(), "nothing was said to it");
    std::fs::write(lab.folder.path().join("ca.crt"), ca(&ours)).expect("written");
    until_true("the pods are watched", SOON, || lab.status()["state"] == "connected");
    assert_eq!(lab.peer(FAR).as_deref(), Some("shop/cart-0"));
    assert_eq!(lab.status()["server"], lab.api.url());
    lab.agent.stop();
}
