//! The file with the rules: what a broken one does, and when a good one is in force.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use netsonde_tests::agent::{free_address, netsonde};
use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, needs_programs, shell};

use super::{CHEAP, Lab, SOON};

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
