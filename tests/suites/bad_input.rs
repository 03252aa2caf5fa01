//! What is wrong is said, names the thing, and costs nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use netsonde_tests::agent::{binary, netsonde};
use netsonde_tests::{Agent, Page, fixtures, shell};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// `netsonde check` of this text, which is killed when it takes more than two seconds of CPU.
fn check(text: &[u8]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bad.yaml");
    fs::write(&file, text).expect("written");
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -t 2; exec \"$@\"", "bash"]).arg(binary()).arg("check").arg(&file);
    let output = shell::output(&mut limited);
    let said = said(&output);
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said)
}

#[test]
fn a_report_has_every_error_with_line_column_key_and_the_nearest_name() {
    let (code, said) = check(
        b"listen: 0.0.0.0:9102\nprobes:\n  - udp\n  - tcp_ext\n  - name: sok\nmetrics:\n  nmaes: both\n",
    );
    assert_eq!(code, Some(1), "{said}");
    for part in
        ["bad.yaml:4:", "tcp_ext", "tcpext", "bad.yaml:5:", "sok", "sock", "bad.yaml:7:3", "nmaes", "names"]
    {
        assert!(said.contains(part), "{part:?} is not in the report:\n{said}");
    }
}

#[test]
fn a_wrong_argument_of_a_probe_is_found_by_check_already() {
    let (code, said) = check(b"probes:\n  - name: tcpsummary\n    args:\n      intervall: 5s\n");
    assert_eq!(code, Some(1), "{said}");
    for part in ["bad.yaml:4:7", "intervall", "interval"] {
        assert!(said.contains(part), "{part:?} is not in the report:\n{said}");
    }
}

/// Bytes without sense, the same each time (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x2545_F491_4F6C_DD1D;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn random_bytes_are_no_configuration() {
    for length in [1, 7, 100, 4096, 100_000] {
        let bytes = noise(length);
        let (code, said) = check(&bytes);
        assert_eq!(code, Some(1), "{length} bytes: {said}");
        assert!(said.contains("bad.yaml"), "{said}");
        assert!(said.len() < 20_000, "the report has {} bytes", said.len());
    }
}

#[test]
fn ten_megabytes_are_refused_at_once() {
    let (code, said) = check("# not a word of sense\n".repeat(10_000_000 / 22).as_bytes());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("bad.yaml"), "{said}");
}

#[test]
fn a_bomb_of_aliases_and_a_tower_of_brackets_are_refused_at_once() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (now, before) in ('b'..='k').zip('a'..) {
        let seven = format!("*{before}, ").repeat(7);
        bomb = format!("{bomb}{now}: &{now} [{seven}]\n");
    }
    for text in [bomb, "[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        let (code, said) = check(text.as_bytes());
        assert_eq!(code, Some(1), "{said}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    for command in ["run", "scrape"] {
        let output = shell::output(&mut netsonde(&[command, "--config", "/nonexistent/netsonde.yaml"]));
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        assert!(said(&output).contains("/nonexistent/netsonde.yaml"), "{}", said(&output));
    }
}

#[test]
fn a_configuration_that_can_be_read_only_once_is_for_commands_that_read_it_once() {
    let command = |command: &str| {
        let line = format!("echo 'probes: [udp]' | exec {} {command} /dev/stdin", binary().display());
        shell::output(Command::new("bash").args(["-c", &line]))
    };
    let output = command("run --config");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("/dev/stdin is a pipe"), "{}", said(&output));
    for once in ["check", "scrape --config"] {
        let output = command(once);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bad.yaml");
    fs::write(&file, "probe: [udp]\n").expect("written");
    let output = shell::output(&mut netsonde(&["run", "--config", file.to_str().expect("UTF-8")]));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("probes"), "{}", said(&output));
}

#[test]
fn a_command_line_that_makes_no_sense_has_a_code_of_its_own() {
    for args in [&["walk"] as &[&str], &["run", "--listen", "nowhere"], &["check"], &[]] {
        let output = shell::output(&mut netsonde(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = shell::output(&mut netsonde(&["run", "--listen", &address]));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains(&address), "{}", said(&output));
}

/// A copy of the frozen tree that a test may spoil, and a configuration for it.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(&fixtures().join("proc-6.18"), &folder.path().join("proc"));
        Self { folder }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("proc").join(path)
    }

    fn config(&self) -> String {
        let proc = self.folder.path().join("proc");
        format!("node_name: frozen\npaths: {{proc: {}, netns: []}}\n", proc.display())
    }

    /// The page, and what is said of the probes.
    fn read(&self) -> (Page, Vec<(String, String)>) {
        let agent = Agent::start(&self.config());
        // tcpsummary reads before the first page or soon after; the others at each.
        let page = agent.scrape();
        let status = agent.status();
        let errors = status["probes"].as_array().expect("probes").iter().filter_map(|probe| {
            Some((probe["name"].as_str()?.to_owned(), probe["last_error"].as_str()?.to_owned()))
        });
        let errors = errors.collect();
        agent.stop();
        (page, errors)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed").flatten() {
        let (kind, target) = (entry.file_type().expect("a type"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).expect("read"), &target).expect("linked");
        } else {
            fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

const FILES: &[&str] = &["netstat", "snmp", "snmp6", "sockstat", "sockstat6", "dev"];

fn healthy() -> Page {
    let (page, errors) = Tree::new().read();
    assert_eq!(errors, [], "the tree as it is has no errors");
    page
}

/// The series of a pod, one a line; without the age of what tcpsummary read, which differs each time.
fn rows(page: &Page, pod: &str) -> Vec<String> {
    let of_pod = page.all_of(pod).filter(|s| s.name != "netsonde_tcpsummary_age_seconds");
    of_pod.map(|s| format!("{} {:?} {}", s.name, s.labels, s.value)).collect()
}

/// Panics with the first lines in which the rows of a pod that nobody touched differ.
fn same_rows(page: &Page, whole: &Page, pod: &str, what: &str) {
    let (is, was) = (rows(page, pod), rows(whole, pod));
    assert!(!was.is_empty(), "{pod} has rows");
    if is != was {
        let gone: Vec<_> = was.iter().filter(|row| !is.contains(row)).take(3).collect();
        let new: Vec<_> = is.iter().filter(|row| !was.contains(row)).take(3).collect();
        panic!("{what} has changed the rows of {pod}: gone {gone:#?}, new {new:#?}");
    }
}

const OTHERS: &[&str] = &["hostNetwork", "7d5f0c1e-2a4b-4c6d-8e0f-1a2b3c4d5e6f"];

#[test]
fn a_truncated_file_costs_its_own_values_of_its_own_namespace_only() {
    let whole = healthy();
    for name in FILES {
        let tree = Tree::new();
        let path = tree.file(&format!("300/net/{name}"));
        let text = fs::read(&path).expect("read");
        for part in [1, 2, 3] {
            fs::write(&path, &text[..text.len() * part / 4]).expect("written");
            // Half a line may still be a number; what counts is that nothing breaks and nobody else is touched.
            let (page, errors) = tree.read();
            for pod in OTHERS {
                same_rows(&page, &whole, pod, &format!("{part} quarters of {name}"));
            }
            for (probe, error) in &errors {
                assert!(error.contains(name) && error.contains("sleep-300"), "{probe}: {error}");
            }
        }
    }
}

#[test]
fn an_unreadable_file_is_named_and_costs_only_its_namespace() {
    let whole = healthy();
    for name in FILES {
        let tree = Tree::new();
        let path = tree.file(&format!("300/net/{name}"));
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        let (page, errors) = tree.read();
        assert!(!errors.is_empty(), "a folder in place of {name} is an error");
        for (probe, error) in &errors {
            assert!(error.contains(name) && error.contains("sleep-300"), "{probe}: {error}");
        }
        for pod in OTHERS {
            same_rows(&page, &whole, pod, &format!("a folder in place of {name}"));
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_an_error_and_no_end() {
    for name in FILES.iter().chain(&["softnet_stat"]) {
        let tree = Tree::new();
        let path = tree.file(&format!("1/net/{name}"));
        fs::write(&path, noise(5000)).expect("written");
        let (page, errors) = tree.read();
        for (probe, error) in &errors {
            assert!(error.contains(name), "{probe}: {error}");
        }
        assert!(!rows(&page, "sleep-300").is_empty());
    }
}

#[test]
fn a_process_whose_files_make_no_sense_is_left_out() {
    let tree = Tree::new();
    for name in ["stat", "io", "limits", "cgroup"] {
        fs::write(tree.file(&format!("300/{name}")), "\u{0}nonsense 1 2 (").expect("written");
    }
    let (page, _) = tree.read();
    assert!(!rows(&page, "hostNetwork").is_empty());
}

#[test]
fn an_empty_proc_gives_an_empty_page_and_no_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = format!("paths: {{proc: {}, netns: []}}\n", folder.path().display());
    let agent = Agent::start(&config);
    assert!(agent.scrape().samples.iter().all(|s| !s.labels.contains_key("target_pod")));
    agent.stop();
}

#[test]
fn a_proc_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("netsonde.yaml");
    fs::write(&file, "paths: {proc: /nonexistent/proc}\n").expect("written");
    let output = shell::output(&mut netsonde(&["scrape", "--config", file.to_str().expect("UTF-8")]));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("/nonexistent/proc"), "{}", said(&output));
}
