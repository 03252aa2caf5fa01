//! The whole page over a frozen /proc, byte for byte, and what Prometheus's own linter says of it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p netsonde-tests --test golden` writes the page anew; read the difference before
//! committing it.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use netsonde_tests::agent::netsonde;
use netsonde_tests::{Page, fixtures, needs_programs, shell};

const PAGE: &str = "proc-6.18.prom";

fn scrape(format: &str) -> String {
    let args = ["scrape", "--no-self", "--config", "golden.yaml", "--format", format];
    shell::run(netsonde(&args).current_dir(fixtures()))
}

#[test]
fn a_frozen_proc_gives_the_same_page_to_the_byte() {
    let page = scrape("openmetrics");
    let golden = fixtures().join(PAGE);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &page).expect("the golden page can be written");
    }
    let wanted = fs::read_to_string(&golden).expect("there is a golden page");
    if page != wanted {
        let line = page.lines().zip(wanted.lines()).position(|(is, was)| is != was);
        let at = line.unwrap_or_else(|| page.lines().count().min(wanted.lines().count()));
        panic!(
            "the page is not the golden one, from line {}:\n  is  {:?}\n  was {:?}\nUPDATE_GOLDEN=1 accepts it",
            at + 1,
            page.lines().nth(at),
            wanted.lines().nth(at)
        );
    }
    assert_eq!(page, scrape("openmetrics"), "a second page of the same tree differs");
}

#[test]
fn the_page_is_strict_openmetrics_and_has_each_namespace() {
    let page = Page::parse(&scrape("openmetrics")).unwrap_or_else(|why| panic!("{why}"));
    let in_datagrams = |pod: &str, what: &str| page.pod(pod).count(what, &[("family", "ipv4")]);
    assert_eq!(in_datagrams("sleep-300", "netsonde_udp_no_ports_total"), 3);
    assert_eq!(in_datagrams("7d5f0c1e-2a4b-4c6d-8e0f-1a2b3c4d5e6f", "netsonde_udp_out_datagrams_total"), 3);
    assert_eq!(in_datagrams("hostNetwork", "netsonde_udp_out_datagrams_total"), 182);
    let nodes = page.samples.iter().filter(|s| s.labels.get("target_node").is_none_or(|n| n != "golden"));
    assert_eq!(nodes.count(), 0, "every series of a probe names the node");
    for (name, family) in &page.families {
        assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}: {family:?}");
    }
}

#[test]
fn promtool_has_no_remark() {
    needs_programs!("promtool");
    // Its parser reads the older text format, in which a counter's family has the `_total`.
    let page = scrape("text");
    let mut promtool = std::process::Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool starts");
    child
        .stdin
        .take()
        .expect("its input is a pipe")
        .write_all(page.as_bytes())
        .expect("promtool reads the page");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&said)
    );
    assert!(page.lines().count() > 100, "the page was not empty");
}
