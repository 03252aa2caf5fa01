//! What Loki gets, and what becomes of what it refuses.

use std::fs;
use std::process::Command;
use std::time::Duration;

use netsonde_sinks::Reason;
use netsonde_tests::loki::Answer;
use netsonde_tests::records::{START_NS, records, sized};
use netsonde_tests::{Loki, needs_programs, shell};
use serde_json::json;

use super::{loki_args, start, wait};

fn all(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn every_event_comes_with_its_labels_time_and_tenant() {
    let loki = Loki::start();
    let driver = start(
        "loki",
        &loki_args(&loki.url(), &json!({"tenant": "shop", "static_labels": {"cluster": "c1"}})),
    );
    assert_eq!(driver.spec_name(), "loki");
    driver.push(&records(0..120));
    wait(&driver, "all are delivered", |counts| counts.delivered == 120);
    let entries = loki.entries();
    assert_eq!(loki.numbers(), all(0..120));
    let labels =
        r#"{cluster="c1",job="netsonde",node="lab",probe="packetloss",type="PacketLoss",namespace="shop"}"#;
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(entry.labels, labels);
        assert_eq!(entry.time_ns, i128::from(START_NS) + n as i128);
    }
    let push = &loki.pushes()[0];
    assert_eq!(push.line, "POST /loki/api/v1/push HTTP/1.1");
    assert_eq!(push.header("X-Scope-OrgID"), Some("shop"));
    assert_eq!(push.header("Content-Type"), Some("application/x-protobuf"));
    assert_eq!(push.header("Authorization"), None);
}

#[test]
fn credentials_come_from_files_and_a_new_token_is_used_at_once() {
    let (loki, folder) = (Loki::start(), tempfile::tempdir().expect("a temporary folder"));
    let (password, token) = (folder.path().join("password"), folder.path().join("token"));
    fs::write(&password, "open sesame\n").expect("written");
    fs::write(&token, "first").expect("written");
    let basic = json!({"username": "Aladdin", "password_file": password});
    let driver = start("loki", &loki_args(&loki.url(), &basic));
    driver.push(&records(0..1));
    wait(&driver, "it is delivered", |counts| counts.delivered == 1);
    drop(driver);
    let driver = start("loki", &loki_args(&loki.url(), &json!({"bearer_token_file": token})));
    driver.push(&records(1..2));
    wait(&driver, "it is delivered", |counts| counts.delivered == 1);
    // As the kubelet does it: another file takes the name.
    let new = folder.path().join("new");
    fs::write(&new, "second").expect("written");
    fs::rename(&new, &token).expect("replaced");
    driver.push(&records(2..3));
    wait(&driver, "it is delivered", |counts| counts.delivered == 2);
    fs::remove_file(&token).expect("removed");
    driver.push(&records(3..4));
    let counts = wait(&driver, "the missing token is told", |counts| counts.failing);
    let why = counts.last_error.expect("told");
    assert!(why.contains("token") && !why.contains("second"), "{why}");
    let sent: Vec<_> =
        loki.pushes().iter().map(|push| push.header("Authorization").map(str::to_owned)).collect();
    let wanted = ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Bearer first", "Bearer second"];
    assert_eq!(sent, wanted.map(|text| Some(text.to_owned())));
}

#[test]
fn whatever_passes_is_tried_again_and_nothing_is_lost_or_out_of_order() {
    let loki = Loki::start();
    for answer in [
        Answer::Say(500, Vec::new(), "ingester is starting"),
        Answer::Take,
        Answer::Reset,
        Answer::Stall,
        Answer::Say(503, Vec::new(), ""),
        Answer::Say(429, Vec::new(), "rate limit"),
    ] {
        loki.then(answer);
    }
    let driver = start("loki", &loki_args(&loki.url(), &json!({"timeout": "2s"})));
    driver.push(&records(0..300));
    let counts = wait(&driver, "all are delivered", |counts| counts.delivered == 300);
    assert_eq!((counts.retries, counts.lost()), (5, 0), "{counts:?}");
    assert_eq!(loki.numbers(), all(0..300));
}

#[test]
fn a_push_whose_answer_is_lost_is_repeated_whole() {
    let loki = Loki::start();
    loki.then(Answer::TakeAndReset);
    let driver = start("loki", &loki_args(&loki.url(), &json!({})));
    driver.push(&records(0..80));
    wait(&driver, "all are delivered", |counts| counts.delivered == 80);
    assert_eq!(loki.numbers(), [all(0..50), all(0..80)].concat());
}

#[test]
fn retry_after_is_waited_for() {
    let loki = Loki::start();
    loki.then(Answer::Say(429, vec![("Retry-After", "2".to_owned())], "slow down"));
    let driver = start("loki", &loki_args(&loki.url(), &json!({})));
    driver.push(&records(0..10));
    wait(&driver, "all are delivered", |counts| counts.delivered == 10);
    let pushes = loki.pushes();
    let pause = pushes[1].at - pushes[0].at;
    assert!(pause >= Duration::from_millis(1990), "{pause:?}");
}

#[test]
fn what_loki_will_not_have_is_dropped_counted_and_explained() {
    let loki = Loki::start();
    loki.then(Answer::Say(400, Vec::new(), "entry too far behind"));
    loki.then(Answer::Say(401, Vec::new(), "no org id"));
    let driver = start("loki", &loki_args(&loki.url(), &json!({})));
    driver.push(&records(0..150));
    let counts = wait(&driver, "nothing waits", |counts| counts.queued() == 0);
    assert_eq!((counts.delivered, counts.dropped_for(Reason::Refused), counts.retries), (50, 100, 0));
    assert_eq!(counts.last_error.as_deref(), Some("HTTP 401: no org id"));
    assert_eq!(loki.numbers(), all(100..150));
}

#[test]
fn a_push_that_is_too_large_is_halved_down_to_one() {
    let loki = Loki::start();
    loki.at_most(7);
    let driver = start("loki", &loki_args(&loki.url(), &json!({})));
    driver.push(&records(0..100));
    let counts = wait(&driver, "all are delivered", |counts| counts.delivered == 100);
    assert_eq!((loki.numbers(), counts.lost()), (all(0..100), 0));
    loki.at_most(0);
    driver.push(&records(100..103));
    let counts = wait(&driver, "nothing waits", |counts| counts.queued() == 0);
    assert_eq!(counts.dropped_for(Reason::TooLarge), 3);
}

#[test]
fn a_batch_is_bounded_by_bytes() {
    let loki = Loki::start();
    let batch = json!({"batch": {"events": 1000, "bytes": 10_000, "age": "10ms"}});
    let driver = start("loki", &loki_args(&loki.url(), &batch));
    driver.push(&(0..20).map(|n| sized(n, 3000)).collect::<Vec<_>>());
    wait(&driver, "all are delivered", |counts| counts.delivered == 20);
    assert!(loki.pushes().iter().all(|push| push.entries <= 3), "{:?}", loki.pushes());
    assert_eq!(loki.numbers(), all(0..20));
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let (loki, other) = (Loki::start(), Loki::start());
    loki.then(Answer::Say(307, vec![("Location", other.url())], ""));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let token = folder.path().join("token");
    fs::write(&token, "mine").expect("written");
    let driver = start("loki", &loki_args(&loki.url(), &json!({"bearer_token_file": token})));
    driver.push(&records(0..5));
    let counts = wait(&driver, "it is refused", |counts| counts.dropped_for(Reason::Refused) == 5);
    assert!(counts.last_error.is_some_and(|why| why.contains("redirects")));
    assert!(other.pushes().is_empty());
}

/// Makes a certificate authority and a certificate for 127.0.0.1 that it has signed.
fn certificates(folder: &std::path::Path) {
    let openssl = |line: &str| {
        shell::run(Command::new("openssl").args(line.split_whitespace()).current_dir(folder));
    };
    fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        .expect("written");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=lab-ca"));
    openssl(&format!("req -x509 {key} -keyout other.key -out other.pem -days 2 -subj /CN=other-ca"));
    openssl(&format!("req {key} -keyout loki.key -out loki.csr -subj /CN=loki"));
    openssl(
        "x509 -req -in loki.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out loki.pem",
    );
}

#[test]
fn tls_trusts_the_authority_of_ca_file_and_no_other() {
    needs_programs!("openssl", "setpriv");
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificates(folder.path());
    let at = |name: &str| folder.path().join(name);
    let loki = Loki::start_tls(&at("loki.pem"), &at("loki.key"));
    let driver = start("loki", &loki_args(&loki.url(), &json!({"ca_file": at("other.pem")})));
    driver.push(&records(0..10));
    wait(&driver, "the certificate is refused", |counts| {
        counts.last_error.as_ref().is_some_and(|why| why.contains("certificate"))
    });
    assert!(loki.pushes().is_empty());
    // A new authority under the same name is read on SIGHUP.
    fs::copy(at("ca.pem"), at("other.pem")).expect("copied");
    driver.reopen();
    wait(&driver, "all are delivered", |counts| counts.delivered == 10);
    assert_eq!(loki.numbers(), all(0..10));
}
