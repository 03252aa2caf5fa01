//! What is spoken, and with whom: versions, suites, certificates of both sides, and their change under traffic.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use netsonde_tests::pki::{Authority, Pair, serial};
use netsonde_tests::wait::until_true;
use netsonde_tests::{needs_programs, shell};

use super::{Lab, SOON, text, tls};

/// Whether a handshake with these arguments of `openssl s_client` works, and what the server shows.
fn handshake(server: SocketAddr, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.to_string()]).args(args);
    let output = shell::output(&mut command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && !said.contains("Cipher is (NONE)") {
        return Ok(said);
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn tls_1_2_and_1_3_are_spoken_with_whom_trusts_the_authority() {
    needs_programs!("curl", "openssl");
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let lab = Lab::new(&tls(&ours.sign("server"), ""), &[]);
    let ca = ours.ca();
    let trust = ["--cacert", text(&ca)];
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        assert_eq!(lab.get("/metrics", &[&trust[..], version].concat()), Ok(200), "{version:?}");
    }
    assert_eq!(lab.get("/metrics", &["--cacert", text(&other.ca())]), Err(60), "not our authority");
    assert!(lab.get("/metrics", &[]).is_err(), "plain HTTP");
    assert!(handshake(lab.agent.address, &["-tls1_2"]).is_ok());
    assert!(handshake(lab.agent.address, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).is_err(), "TLS 1.1");
    let page = lab.scrape(&trust);
    assert!(page.count("netsonde_http_refused_connections_total", &[("reason", "handshake")]) >= 3);
    assert_eq!(page.count("netsonde_web_config_last_reload_successful", &[]), 1);
    lab.agent.stop();
}

#[test]
fn versions_suites_and_curves_are_those_of_the_file() {
    needs_programs!("curl", "openssl");
    let ours = Authority::new("ours");
    let server = ours.sign("server");
    let lab = Lab::new(&tls(&server, "  min_version: TLS13\n  curve_preferences: [CurveP384]\n"), &[]);
    assert!(handshake(lab.agent.address, &["-tls1_2"]).is_err());
    assert!(handshake(lab.agent.address, &["-tls1_3", "-groups", "P-256"]).is_err());
    assert!(handshake(lab.agent.address, &["-tls1_3", "-groups", "P-384"]).is_ok());
    lab.agent.stop();
    let suites = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n";
    let lab = Lab::new(&tls(&server, suites), &[]);
    assert!(handshake(lab.agent.address, &["-tls1_3"]).is_err());
    let said = handshake(lab.agent.address, &["-tls1_2"]).expect("the suite is common");
    assert!(said.contains("Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"), "{said}");
    assert!(handshake(lab.agent.address, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]).is_err());
    lab.agent.stop();
}

#[test]
fn clients_show_a_certificate_of_the_right_authority_where_they_must() {
    needs_programs!("curl", "openssl");
    let (ours, clients, other) = (Authority::new("ours"), Authority::new("clients"), Authority::new("other"));
    let (server, good, bad) = (ours.sign("server"), clients.sign("prometheus"), other.sign("mallory"));
    let ca = ours.ca();
    let trust = ["--cacert", text(&ca)];
    let with = |pair: &Pair| {
        [&trust[..], &["--cert", text(&pair.cert), "--key", text(&pair.key)]]
            .concat()
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let must = |kind: &str| {
        tls(&server, &format!("  client_auth_type: {kind}\n  client_ca_file: {}\n", clients.ca().display()))
    };
    for (kind, without) in [("RequireAndVerifyClientCert", false), ("VerifyClientCertIfGiven", true)] {
        let lab = Lab::new(&must(kind), &[]);
        let get = |args: &[String]| lab.get("/metrics", &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(get(&with(&good)), Ok(200), "{kind}");
        assert!(get(&with(&bad)).is_err(), "{kind}: another authority's");
        assert_eq!(lab.get("/metrics", &trust).is_ok(), without, "{kind}: none");
        assert_eq!(lab.get("/healthz", &trust).is_ok(), without, "{kind}: none, for health");
        lab.agent.stop();
    }
}

#[test]
fn a_certificate_is_rotated_under_traffic_without_a_failed_request() {
    needs_programs!("curl", "openssl");
    let ours = Authority::new("ours");
    let first = ours.sign("first");
    let lab = Lab::new(
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n",
        &[
            ("tls.crt", &std::fs::read_to_string(&first.cert).expect("read")),
            ("tls.key", &std::fs::read_to_string(&first.key).expect("read")),
        ],
    );
    let ca = ours.ca();
    let trust = ["--cacert", text(&ca)];
    let shown = || {
        let said = handshake(lab.agent.address, &["-tls1_3"]).expect("a handshake");
        let pem = lab.folder.path().join("shown");
        std::fs::write(&pem, said).expect("written");
        serial(&pem)
    };
    assert_eq!(shown(), serial(&first.cert));
    let (stop, good) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(lab.get("/metrics", &trust), Ok(200));
                good.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..3 {
            let next = ours.sign(&format!("next{round}"));
            // One after the other, as few tools that renew do otherwise; in between they do not fit.
            for (name, path) in [("tls.crt", &next.cert), ("tls.key", &next.key)] {
                lab.write(name, &std::fs::read_to_string(path).expect("read"));
                std::thread::sleep(Duration::from_millis(100));
            }
            until_true("the new certificate is shown", SOON, || shown() == serial(&next.cert));
        }
        // A pair that does not fit is refused, and the last good one stays.
        let last = shown();
        lab.write("tls.key", &std::fs::read_to_string(&first.key).expect("read"));
        until_true("it is refused", SOON, || {
            lab.scrape(&trust).count("netsonde_web_config_last_reload_successful", &[]) == 0
        });
        assert_eq!(shown(), last);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(good.load(Ordering::Relaxed) > 20, "{good:?} requests are no traffic");
    assert!(lab.agent.log().contains("do not make a server"), "{}", lab.agent.log());
    lab.agent.stop();
}
