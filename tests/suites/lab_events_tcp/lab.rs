//! Two pods with addresses that nobody else has, an agent that watches them, and what both look at in an event.

use std::net::{TcpListener, TcpStream};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use netsonde_tests::events::{number, own_sides, text};
use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Agent, Netns, Page, Pair};
use serde_json::Value;

pub const SOON: Duration = Duration::from_secs(5);

/// A connection is closed when the last descriptor of it is, and for a moment a program that another test starts has
/// copies of all descriptors of this process. Tests of who closed are alone.
static STARTS: RwLock<()> = RwLock::new(());

pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    STARTS.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn alone() -> RwLockWriteGuard<'static, ()> {
    STARTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A pair with addresses of its own, and an agent that watches it.
pub struct Lab {
    pub pair: Pair,
    pub agent: Agent,
    pub before: Page,
    _bystander: Netns,
    pub a: String,
    pub b: String,
}

/// One for IPv4 and one for IPv6.
pub fn labs(hint: &'static str, probes: &'static str) -> impl Iterator<Item = Lab> {
    (0..2).map(move |family| {
        let pair = Pair::new(hint);
        let (a, b) = own_sides(&pair).swap_remove(family);
        let (agent, bystander, before) = watch(probes, &pair);
        Lab { pair, agent, before, _bystander: bystander, a, b }
    })
}

impl Lab {
    /// A connection: the end in `a`, and the one in `b`, where `listener` is.
    pub fn connection(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = self.pair.a.connect(&format!("{}:7000", self.b));
        client.set_nodelay(true).expect("a connection can do without Nagle");
        (client, listener.accept().expect("a connection").0)
    }

    pub fn listener(&self) -> TcpListener {
        self.pair.b.listen(&format!("{}:7000", self.b), 16)
    }

    pub fn grew(&self, ns: &Netns, name: &str, labels: &[(&str, &str)]) -> u64 {
        between(&self.before, &self.agent.scrape()).grew_in_all(ns, name, labels)
    }

    /// The source is this pod, the other end is the other one.
    pub fn is_between(&self, ns: &Netns, event: &Value) {
        let at_a = ns.name() == self.pair.a.name();
        let (own, other) = if at_a { (&self.a, &self.b) } else { (&self.b, &self.a) };
        let peer = if at_a { &self.pair.b } else { &self.pair.a };
        assert_eq!((text(event, "src"), text(event, "dst")), (bare(own), bare(other)), "{event:#}");
        assert_eq!(text(event, "pod"), ns.name());
        assert_eq!(event["peer_pod"], peer.name(), "{event:#}");
        assert_eq!(text(event, "protocol"), "tcp");
        let port = number(event, if at_a { "dport" } else { "sport" });
        assert!((7000..8000).contains(&port), "{event:#}");
        assert!(number(event, if at_a { "sport" } else { "dport" }) > 8000, "{event:#}");
    }
}

pub fn query(ns: &Netns, kind: &str) -> String {
    format!("pod={}&type={kind}", ns.name())
}

/// Without the brackets that stand in front of a port.
pub fn bare(side: &str) -> &str {
    side.trim_matches(['[', ']'])
}

pub fn have_state(told: &[Value], state: &str) {
    for event in told {
        assert_eq!(event["state"], state, "{event:#}");
    }
}
