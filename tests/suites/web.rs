//! TLS, credentials and bounds of the server: who is let in, who is not, and what a change of the files does.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netsonde_tests::agent::{free_address, netsonde};
use netsonde_tests::pki::{Authority, Pair, serial};
use netsonde_tests::prometheus::Prometheus;
use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, Page, http, needs_programs, shell, until};

const SOON: Duration = Duration::from_secs(10);

/// bcrypt of "open sesame": at the cost of practice, and at the least.
const HASH: &str = "$2b$10$RC8XVrPTCbM8wSyTIoiCVu05IxImKplmJQbfQ9/lA6IosE0iVdsNi";
const CHEAP: &str = "$2b$04$Fhv8Zo/L8bY.EoGXiShNquYKzMp28jxJbwjiEbCbTuL6ceznsfekK";

/// An agent with a web configuration file.
struct Lab {
    agent: Agent,
    folder: tempfile::TempDir,
}

impl Lab {
    /// Starts one and waits until it listens. Paths in `web` that begin with `HERE` are in its folder.
    fn new(web: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let file = folder.path().join("web.yml");
        std::fs::write(&file, web).expect("written");
        let agent = Agent::launch(&format!("probes: [udp]\nweb_config: {}\n", file.display()));
        until("the agent listens", Duration::from_secs(20), || TcpStream::connect(agent.address).ok());
        Self { agent, folder }
    }

    /// Replaces a file of its folder at once.
    fn write(&self, name: &str, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, self.folder.path().join(name)).expect("replaced");
    }

    /// The status code of a GET with these arguments of curl's, or curl's exit code.
    fn get(&self, url: &str, args: &[&str]) -> Result<u16, i32> {
        let url = format!(
            "{}://{}{}",
            if args.contains(&"--cacert") { "https" } else { "http" },
            self.agent.address,
            url
        );
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        let output = shell::output(command.args(args).arg(url));
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).parse().expect("a status code")),
            code => Err(code.unwrap_or(-1)),
        }
    }

    /// The page, with these arguments of curl's.
    fn scrape(&self, args: &[&str]) -> Page {
        let scheme = if args.contains(&"--cacert") { "https" } else { "http" };
        let url = format!("{scheme}://{}/metrics", self.agent.address);
        let page = shell::run(
            Command::new("curl").args(["--silent", "--fail", "--max-time", "10"]).args(args).arg(url),
        );
        Page::parse(&page).unwrap_or_else(|why| panic!("{why}"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn tls(pair: &Pair, more: &str) -> String {
    format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n{more}",
        pair.cert.display(),
        pair.key.display()
    )
}

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

#[test]
fn a_broken_file_opens_nothing_takes_nothing_down_and_is_told_of_everywhere() {
    needs_programs!("curl");
    let lab = Lab::new(&format!("basic_auth_users: {{ali: '{CHEAP}'}}\n"), &[]);
    let ali = ["--user", "ali:open sesame"];
    for (broken, why) in [("basic_auth_users: {ali: hunter2}\n", "web.yml:1:25"), ("", "")] {
        if broken.is_empty() {
            std::fs::remove_file(lab.folder.path().join("web.yml")).expect("removed");
        } else {
            lab.write("web.yml", broken);
        }
        until_true("it is refused", SOON, || {
            lab.scrape(&ali).count("netsonde_web_config_last_reload_successful", &[]) == 0
        });
        assert_eq!(lab.get("/metrics", &[]), Ok(401));
        let url = format!("http://{}/status", lab.agent.address);
        let status = shell::run(Command::new("curl").args(["--silent", "--fail"]).args(ali).arg(url));
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["web_config"]["in_force"], false, "{status:#}");
        let problem = status["web_config"]["problem"].as_str().expect("a problem");
        assert!(problem.contains(why) && !problem.contains("hunter2"), "{problem}");
        assert!(lab.agent.log().contains("the web configuration was refused"), "{}", lab.agent.log());
        lab.write("web.yml", &format!("basic_auth_users: {{ali: '{CHEAP}'}}\n"));
        until_true("a good file heals it", SOON, || {
            lab.scrape(&ali).count("netsonde_web_config_last_reload_successful", &[]) == 1
        });
    }
    let page = lab.scrape(&ali);
    assert_eq!(page.count("netsonde_web_config_reloads_total", &[("result", "refused")]), 2);
    lab.agent.stop();
}

#[test]
fn a_broken_file_at_the_start_is_an_error_and_nothing_listens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("web.yml");
    for (web, wanted) in [
        ("tls_server_config: {cert_file: none.crt, key_file: none.key}\n", "none.crt"),
        ("http_server_config: {headers: {}}\n", "web.yml:1:22: http_server_config.headers: is not supported"),
    ] {
        std::fs::write(&file, web).expect("written");
        let address = free_address().to_string();
        let output = shell::output(netsonde(&["run", "--listen", &address, "--web.config.file"]).arg(&file));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted), "{said}");
        let config = folder.path().join("netsonde.yaml");
        std::fs::write(&config, "probes: [udp]\n").expect("written");
        let check = shell::output(netsonde(&["check"]).arg(&config).arg("--web.config.file").arg(&file));
        assert_eq!(check.status.code(), Some(1), "{check:?}");
    }
}

#[test]
fn rules_come_and_go_with_the_configuration_and_end_what_was_let_in_before() {
    let agent = Agent::start("probes: [udp]\n");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let web = folder.path().join("web.yml");
    let with = format!("probes: [udp]\nweb_config: {}\n", web.display());
    assert!(agent.scrape().find("netsonde_web_config_last_reload_successful", &[]).is_none());

    // One that is kept open, as Prometheus's are.
    let mut kept = TcpStream::connect(agent.address).expect("connected");
    kept.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = [0; 1024];
    let length = kept.read(&mut answer).expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));

    std::fs::write(&web, "basic_auth_users: {ali: sesame}\n").expect("written");
    agent.write_config(&with);
    until_true("a broken web configuration refuses the whole", SOON, || {
        agent.scrape().count("netsonde_config_last_reload_successful", &[]) == 0
    });
    let problem = agent.status()["config"]["problem"].as_str().expect("a problem").to_owned();
    assert!(problem.starts_with("web_config: ") && problem.contains("is no bcrypt hash"), "{problem}");

    std::fs::write(&web, format!("basic_auth_users: {{ali: '{CHEAP}'}}\n")).expect("written");
    agent.write_config(&format!("{with}node_name: x\n"));
    until_true("the rules are in force", SOON, || agent.get("/metrics", &[]).status == 401);
    assert_eq!(kept.read(&mut answer).expect("closed, not reset"), 0, "it was let in under other rules");

    agent.write_config("probes: [udp]\n");
    until_true("everybody may read again", SOON, || agent.get("/metrics", &[]).status == 200);
    agent.stop();
}

#[test]
fn a_relative_path_is_taken_from_the_folder_of_the_configuration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("web.yml"), format!("basic_auth_users: {{a: '{CHEAP}'}}\n"))
        .expect("written");
    let config = folder.path().join("netsonde.yaml");
    std::fs::write(&config, "probes: [udp]\nweb_config: web.yml\n").expect("written");
    let agent = Agent::start_with_file(&config);
    assert_eq!(agent.get("/metrics", &[]).status, 401);
    agent.stop();
}

#[test]
fn who_says_nothing_or_says_it_slowly_is_sent_away_and_counted() {
    let agent = Agent::start("probes: [udp]\n");
    let connect = || {
        let stream = TcpStream::connect(agent.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        stream
    };
    let start = Instant::now();
    let mut open: Vec<_> = (0..6).map(|_| connect()).collect();
    let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ";
    let mut sent = 0;
    while !open.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(40), "{} are still open", open.len());
        // Half of them say nothing, half of them a byte now and then.
        for stream in open.iter_mut().skip(3) {
            let _ = stream.write_all(&[head.get(sent).copied().unwrap_or(b'a')]);
        }
        sent += 1;
        // 0: closed; an error in time: open still.
        open.retain_mut(|stream| match stream.read(&mut [0; 512]) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(start.elapsed() > Duration::from_secs(15), "a client may take its time: {:?}", start.elapsed());
    let page = agent.scrape();
    assert_eq!(page.count("netsonde_http_refused_connections_total", &[("reason", "slow")]), 6);
    agent.stop();
}

#[test]
fn more_connections_than_may_be_are_closed_at_once_and_counted() {
    let agent = Agent::start("probes: [udp]\n");
    let open: Vec<_> = (0..300).map(|_| TcpStream::connect(agent.address).expect("connected")).collect();
    let closed = |stream: &TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
        matches!((&*stream).read(&mut [0; 16]), Ok(0))
            || stream.take_error().is_ok_and(|error| error.is_some())
    };
    until_true("those beyond are closed", SOON, || {
        open.iter().filter(|stream| closed(stream)).count() >= 300 - 256
    });
    assert!(http::get(agent.address, "/healthz", &[]).is_err(), "there is no room");
    drop(open);
    let page = until("there is room again", SOON, || {
        http::get(agent.address, "/healthz", &[]).ok().map(|_| agent.scrape())
    });
    let refused = page.count("netsonde_http_refused_connections_total", &[("reason", "too_many")]);
    assert!((45..=60).contains(&refused), "{refused} of 301 were refused");
    assert!(page.count("netsonde_http_connections", &[]) < 20);
    agent.stop();
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
