//! What is served, and how a scraper is treated.

use netsonde_tests::{Agent, Page, http};

#[test]
fn nothing_is_served_but_what_is_documented() {
    let agent = Agent::start("probes: [udp]\n");
    for path in ["/healthz", "/readyz", "/status", "/metrics"] {
        assert_eq!(agent.get(path, &[]).status, 200, "{path}");
    }
    for path in
        ["/debug/pprof/", "/config", "/metrics/x", "/favicon.ico", "/..%2f..%2fetc/passwd", "//metrics"]
    {
        assert_eq!(agent.get(path, &[]).status, 404, "{path}");
    }
    agent.stop();
}

#[test]
fn a_page_is_openmetrics_by_default_and_the_older_text_for_who_asks() {
    let agent = Agent::start("probes: [udp]\n");
    let page = agent.get("/metrics", &[]);
    let kind = page.header("content-type").expect("a content type");
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    Page::parse(page.text()).unwrap_or_else(|why| panic!("{why}"));
    let old = agent.get("/metrics", &[("Accept", "text/plain; version=0.0.4")]);
    assert!(old.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    assert!(old.text().contains("# TYPE netsonde_udp_in_datagrams_total counter"));
    assert!(!old.text().contains("# EOF"));
    agent.stop();
}

#[test]
fn a_page_is_packed_for_who_can_unpack_it() {
    let agent = Agent::start("probes: [udp]\n");
    let packed = agent.get("/metrics", &[("Accept-Encoding", "gzip")]);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let text = String::from_utf8(packed.gunzip()).expect("UTF-8");
    assert!(packed.body.len() < text.len());
    Page::parse(&text).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(agent.get("/metrics", &[]).header("content-encoding"), None);
    agent.stop();
}

#[test]
fn scrapes_at_the_same_time_share_one_gathering() {
    // All probes: a gathering that takes a while.
    let agent = Agent::start("");
    let count = |page: &Page, name: &str| page.count(name, &[]);
    let before = agent.scrape();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..10 {
                    agent.scrape();
                }
            });
        }
    });
    let after = agent.scrape();
    let grew = |name| count(&after, name) - count(&before, name);
    let (made, shared) = (grew("netsonde_scrapes_total"), grew("netsonde_scrapes_shared_total"));
    assert!(shared > 0, "{made} gatherings for 81 scrapes, none shared");
    assert!(made < 81, "{made} gatherings for 81 scrapes");
    agent.stop();
}

#[test]
fn a_connection_that_says_nothing_stops_nobody_else() {
    let agent = Agent::start("probes: [udp]\n");
    let silent: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(agent.address).expect("connected")).collect();
    assert_eq!(http::get(agent.address, "/healthz", &[]).expect("an answer").status, 200);
    agent.scrape();
    drop(silent);
    agent.stop();
}

#[test]
fn an_open_connection_does_not_delay_the_end() {
    let agent = Agent::start("probes: [udp]\n");
    let _silent = std::net::TcpStream::connect(agent.address).expect("connected");
    // Asserts that it ends within two seconds, with code 0.
    agent.stop();
}

#[test]
fn the_agent_tells_of_itself() {
    let agent = Agent::start("probes: [udp, tcp]\n");
    agent.scrape();
    let page = agent.scrape();
    for probe in ["udp", "tcp"] {
        let of = [("probe", probe)];
        assert_eq!(page.count("netsonde_probe_success", &of), 1);
        assert_eq!(page.count("netsonde_probe_state", &[of[0], ("state", "running")]), 1);
        assert!(page.count("netsonde_probe_series", &of) > 0);
        assert!(page.value("netsonde_probe_collect_seconds", &of) > 0.0);
        assert_eq!(page.count("netsonde_probe_refused_series_total", &of), 0);
    }
    assert_eq!(page.count("netsonde_build_info", &[]), 1);
    assert!(page.sum("netsonde_namespaces", &[]) >= 1.0);
    assert!(page.value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(page.value("process_open_fds", &[]) > 3.0);
    let real = agent.descriptors() as f64;
    assert!((page.value("process_open_fds", &[]) - real).abs() < 20.0, "{real} are open");
    agent.stop();
}
