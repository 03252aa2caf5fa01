//! Which table and chain of nf_tables dropped a packet, where this kernel lets its functions be hooked.

use netsonde_tests::events::{number, own_sides, text, until_events};
use netsonde_tests::lab::{send, watch};
use netsonde_tests::{Pair, needs_programs, needs_root};
use serde_json::Value;

const PROBES: &str = "[{name: packetloss, args: {chains: true}}]";

fn is_attached(status: &Value, hook: &str) -> bool {
    let probes = status["probes"].as_array().expect("a list");
    let probe = probes.iter().find(|p| p["name"] == "packetloss").expect("it was asked for");
    let hooks = probe["hooks"].as_array().expect("a list");
    let hook = hooks.iter().find(|h| h["name"] == hook).unwrap_or_else(|| panic!("no {hook}: {hooks:?}"));
    hook["state"] == "attached"
}

#[test]
fn the_chain_that_drops_is_told_and_no_other_that_saw_the_packet() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::new("chains");
    let sides = own_sides(&pair);
    // Loaded before the agent looks for its types.
    pair.b.nft(
        "table inet early {
            chain looks_first {
                type filter hook input priority -10
                udp dport 6000 accept
            }
        }
        table inet lab {
            chain drops {
                type filter hook input priority 0
                udp dport 6000 jump deeper
            }
            chain deeper {
                udp dport 6000 drop
            }
        }
        table inet late {
            chain never_sees {
                type filter hook input priority 10
            }
        }",
    );
    let (agent, _bystander, _) = watch(PROBES, &pair);
    let hooked = is_attached(&agent.status(), "nft_do_chain");
    if !hooked {
        netsonde_tests::note("nft_do_chain cannot be hooked here: chains are not told");
    }
    for (n, (a, b)) in (1..).zip(&sides) {
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6000"), 3, 100);
        // Another reason, of no chain: nobody listens there.
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6001"), 1, 100);
        let found = until_events(&agent, &format!("type=PacketLoss&pod={}", pair.b.name()), 4 * n);
        for event in &found {
            if number(event, "dport") == 6001 {
                assert!(event.get("chain").is_none(), "{event:#}");
            } else if hooked {
                assert_eq!((text(event, "table"), text(event, "chain")), ("lab", "drops"), "{event:#}");
            } else {
                assert!(event.get("chain").is_none() && event.get("table").is_none(), "{event:#}");
            }
        }
    }
    agent.stop();
}
