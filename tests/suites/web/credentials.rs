//! Passwords and tokens, as curl, `netsonde events` and Prometheus show them.

use std::time::Duration;

use netsonde_tests::agent::netsonde;
use netsonde_tests::pki::Authority;
use netsonde_tests::prometheus::Prometheus;
use netsonde_tests::wait::until_true;
use netsonde_tests::{needs_programs, shell};

use super::{CHEAP, HASH, Lab, text, tls};

#[test]
fn a_password_or_the_token_opens_everything_and_health_needs_neither() {
    needs_programs!("curl");
    let web = format!("basic_auth_users: {{ali: '{HASH}'}}\nbearer_token_file: token\n");
    let lab = Lab::new(&web, &[("token", "s3cret\n")]);
    for args in [&["--user", "ali:open sesame"][..], &["--oauth2-bearer", "s3cret"]] {
        for path in ["/metrics", "/status", "/events?last=1&follow=false"] {
            assert_eq!(lab.get(path, args), Ok(200), "{path} {args:?}");
        }
        assert_eq!(lab.get("/nothing", args), Ok(404));
    }
    let wrong = [
        &[][..],
        &["--user", "ali:open sesam"],
        &["--user", "baba:open sesame"],
        &["--user", "ali:"],
        &["--oauth2-bearer", "s3cre"],
        &["--header", "Authorization: nonsense"],
    ];
    for args in wrong {
        for path in ["/metrics", "/status", "/events", "/nothing", "//healthz", "/healthz/../metrics"] {
            let code = lab.get(path, &[&["--path-as-is"], args].concat());
            assert_eq!(code, Ok(401), "{path} {args:?}");
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(lab.get(path, args), Ok(200), "{path} {args:?}");
        }
    }
    let denied = lab.agent.get("/metrics", &[]);
    assert_eq!(denied.header("www-authenticate"), Some("Basic realm=\"netsonde\", charset=\"UTF-8\""));
    assert_eq!(denied.text(), "unauthorized\n");
    let page = lab.scrape(&["--oauth2-bearer", "s3cret"]);
    let count = |reason| page.count("netsonde_http_denied_requests_total", &[("reason", reason)]);
    assert_eq!((count("no_credentials"), count("wrong_credentials")), (7, 30));
    assert!(!lab.agent.log().contains("s3cret") && !lab.agent.log().contains("sesam"), "{}", lab.agent.log());
    lab.agent.stop();
}

#[test]
fn netsonde_events_shows_its_credentials() {
    needs_programs!("openssl");
    let ours = Authority::new("ours");
    let credentials = format!("basic_auth_users: {{ali: '{CHEAP}'}}\nbearer_token_file: token\n");
    let web = format!("{}{credentials}", tls(&ours.sign("server"), ""));
    let lab = Lab::new(&web, &[("token", "s3cret\n"), ("password", "open sesame\n"), ("wrong", "shut\n")]);
    let at = |name: &str| lab.folder.path().join(name).display().to_string();
    let url = format!("https://{}", lab.agent.address);
    let events = |args: &[&str]| {
        let output =
            shell::output(netsonde(&["events", "--url", &url, "--ca-file", text(&ours.ca())]).args(args));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for good in
        [&["--user", "ali", "--password-file", &at("password")][..], &["--bearer-token-file", &at("token")]]
    {
        assert_eq!(events(good), (Some(0), String::new()), "{good:?}");
    }
    for bad in [&[][..], &["--user", "ali", "--password-file", &at("wrong")]] {
        let (code, said) = events(bad);
        assert!(code == Some(3) && said.contains("401"), "{bad:?}: {code:?} {said}");
    }
    lab.agent.stop();
}

#[test]
fn prometheus_scrapes_over_tls_with_a_password_and_a_certificate() {
    needs_programs!("openssl", "prometheus");
    let ours = Authority::new("ours");
    let (server, client) = (ours.sign("server"), ours.sign("prometheus"));
    let ca = ours.ca();
    let must = format!("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {}\n", text(&ca));
    let lab = Lab::new(&format!("{}basic_auth_users: {{prom: '{HASH}'}}\n", tls(&server, &must)), &[]);
    let scrape = |password: &str| {
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: netsonde\n  scheme: https\n  tls_config: \
             {{ca_file: {}, cert_file: {}, key_file: {}}}\n  basic_auth: {{username: prom, password: {password}}}\n  \
             static_configs: [{{targets: ['{}']}}]\n",
            text(&ca),
            text(&client.cert),
            text(&client.key),
            lab.agent.address
        )
    };
    for (password, up) in [("open sesame", 1.0), ("shut sesame", 0.0)] {
        let prometheus = Prometheus::start(&scrape(password), &[]);
        until_true("it has scraped the agent", Duration::from_secs(30), || {
            prometheus
                .query("up")
                .is_ok_and(|found| found.first().is_some_and(|(_, value)| (*value - up).abs() < 0.1))
        });
        let targets = prometheus.get("/api/v1/targets").expect("targets");
        let error = targets["data"]["activeTargets"][0]["lastError"].as_str().expect("a text").to_owned();
        assert_eq!(error.contains("401"), up < 0.5, "{error}");
    }
    lab.agent.stop();
}
