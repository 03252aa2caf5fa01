//! What a schema cannot say: names used once, labels that Prometheus accepts, an address that can be listened on.
//!
//! The rules read the tree and not the typed model, so that they report in the same breath as the schema's problems
//! and at the same places. What has the wrong type is passed over: the schema has reported it.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::known::{Known, Part, find};
use crate::model::{File, LabelNames, pod_label_name};
use crate::report::Problem;
use crate::schema::definition;
use crate::tree::{Entry, Mark, Node};
use crate::validate::validate;
use crate::words::{join, quoted};

/// Labels that the exposition format or Prometheus itself gives a meaning.
const RESERVED: [&str; 2] = ["le", "quantile"];

/// Every problem of a file that the schema has no words for.
pub(crate) fn check(schema: &Value, file: &Node, known: &Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    parts(schema, file, ("probes", "probe"), &known.probes, &mut problems);
    parts(schema, file, ("sinks", "sink"), &known.sinks, &mut problems);
    labels(file, &mut problems);
    problems.extend(prefix(file));
    problems.extend(listen(file));
    problems.extend(cri(file));
    problems.extend(cluster_server(file));
    problems
}

/// Each part at most once, and none without the arguments that it cannot do without.
fn parts(
    schema: &Value,
    file: &Node,
    (key, kind): (&str, &str),
    parts: &[Part],
    problems: &mut Vec<Problem>,
) {
    let mut seen: HashMap<&str, Mark> = HashMap::new();
    let items = file.at(&[key]).map_or(&[][..], Node::items);
    for (index, item) in items.iter().enumerate() {
        let name = item.at(&["name"]).unwrap_or(item);
        let Some(part) = name.text().and_then(|name| find(parts, name)) else { continue };
        let path = format!("{key}[{index}]");
        if let Some(first) = seen.get(part.name) {
            let message = format!("the {kind} {} is in the list already, at line {}", part.name, first.line);
            problems.push(Problem::new(name.mark, &path, message));
        } else {
            seen.insert(part.name, name.mark);
        }
        if item.entry("args").is_none() {
            let args = &schema["$defs"][definition(kind, part.name)];
            problems.extend(validate(schema, args, &Node::empty_map(item.mark), &join(&path, "args")));
        }
    }
}

/// The labels of every series: names that Prometheus accepts, each used once.
fn labels(file: &Node, problems: &mut Vec<Problem>) {
    let default = LabelNames::default();
    let mut taken: Vec<(String, String)> = Vec::new();
    for (key, default) in [("node", default.node), ("namespace", default.namespace), ("pod", default.pod)] {
        let path = format!("metrics.labels.{key}");
        let written = file.at(&["metrics", "labels", key]);
        let name = written.map_or(Some(default.as_str()), Node::text);
        let Some(name) = name else { continue };
        if let Some(node) = written {
            problems.extend(label(name, node.mark, &path, &taken));
        }
        taken.push((name.to_owned(), path));
    }
    if let Some(node) = file.at(&["metrics", "labels", "workload"])
        && let Some(name) = node.text()
    {
        let path = "metrics.labels.workload";
        problems.extend(label(name, node.mark, path, &taken));
        taken.push((name.to_owned(), path.to_owned()));
    }
    for Entry { name, mark, .. } in file.at(&["metrics", "extra_labels"]).map_or(&[][..], Node::entries) {
        let path = join("metrics.extra_labels", name);
        problems.extend(label(name, *mark, &path, &taken));
        taken.push((name.clone(), path));
    }
    let keys = file.at(&["metrics", "pod_labels"]).map_or(&[][..], Node::items);
    for (index, node) in keys.iter().enumerate() {
        let Some(key) = node.text() else { continue };
        let path = format!("metrics.pod_labels[{index}]");
        if let Some(message) = not_a_pod_label(key) {
            problems.push(Problem::new(node.mark, &path, message));
            continue;
        }
        let name = pod_label_name(key);
        if let Some((_, other)) = taken.iter().find(|(taken, _)| *taken == name) {
            let message = format!("{key:?} becomes the label {name:?}, which is taken by {other}");
            problems.push(Problem::new(node.mark, &path, message));
        }
        taken.push((name, path));
    }
}

/// Why this cannot be the key of a pod's label: Kubernetes allows a DNS name and a slash in front of 63 characters.
fn not_a_pod_label(key: &str) -> Option<String> {
    let (domain, name) = key.rsplit_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let plain = |text: &str, most: usize| {
        (1..=most).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let good = plain(name, 63) && domain.is_none_or(|domain| plain(domain, 253));
    (!good).then(|| {
        format!(
            "{} is not the key of a Kubernetes label; write one such as app.kubernetes.io/name",
            quoted(key)
        )
    })
}

/// `auto`, `off` or the path of a socket.
fn cri(file: &Node) -> Option<Problem> {
    let node = file.at(&["discovery", "cri"])?;
    let text = node.text().filter(|text| !matches!(*text, "auto" | "off") && !text.starts_with('/'))?;
    let message = format!("{} is neither auto nor off nor the path of a socket", quoted(text));
    let path = text.strip_prefix("unix://").filter(|path| path.starts_with('/'));
    Some(Problem::new(node.mark, "discovery.cri", message).suggest(path))
}

/// The token must not travel in the clear.
fn cluster_server(file: &Node) -> Option<Problem> {
    let node = file.at(&["discovery", "cluster_server"])?;
    let text = node.text()?;
    let authority = |rest: &str| {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
    };
    let here = |rest: &str| {
        let address = rest.strip_suffix('/').unwrap_or(rest).parse::<SocketAddr>();
        address.is_ok_and(|address| address.ip().is_loopback())
    };
    if text.strip_prefix("https://").is_some_and(authority) || text.strip_prefix("http://").is_some_and(here)
    {
        return None;
    }
    let message = format!(
        "{} is neither https://HOST:PORT nor http:// with an address and port of this machine",
        quoted(text)
    );
    Some(Problem::new(node.mark, "discovery.cluster_server", message))
}

fn label(name: &str, mark: Mark, path: &str, taken: &[(String, String)]) -> Option<Problem> {
    let message = if !is_identifier(name) {
        format!(
            "{} is not a label name; write letters, digits and underscores, a letter or underscore first",
            quoted(name)
        )
    } else if name.starts_with("__") {
        format!("{} cannot be a label name: Prometheus keeps names that start with __", quoted(name))
    } else if RESERVED.contains(&name) {
        format!("{name:?} cannot be a label name: histograms and summaries use it")
    } else {
        let (_, other) = taken.iter().find(|(taken, _)| taken == name)?;
        format!("the label {name:?} is taken by {other}; each label needs a name of its own")
    };
    Some(Problem::new(mark, path, message))
}

fn prefix(file: &Node) -> Option<Problem> {
    let node = file.at(&["metrics", "prefix"])?;
    let text = node.text().filter(|text| !is_identifier(text))?;
    let message = format!(
        "{} cannot start a metric name; write letters, digits and underscores, a letter or underscore first",
        quoted(text)
    );
    Some(Problem::new(node.mark, "metrics.prefix", message))
}

fn listen(file: &Node) -> Option<Problem> {
    let node = file.at(&["listen"])?;
    let text = node.text().filter(|text| text.parse::<SocketAddr>().is_err())?;
    let message = format!("{} is not an address and a port", quoted(text));
    // What people write instead, with what it means there.
    let meant = match text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')) {
        Some(port) if text.starts_with(':') => format!("0.0.0.0:{port}"),
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.parse::<u16>().is_ok() => format!("0.0.0.0:{text}"),
        None if text.parse::<std::net::Ipv4Addr>().is_ok() => format!("{text}:9102"),
        None => String::new(),
    };
    let problem = Problem::new(node.mark, "listen", message);
    Some(if meant.parse::<SocketAddr>().is_ok() {
        problem.suggest(Some(&meant))
    } else {
        let default = File::default().listen;
        Problem { message: format!("{}, such as {default}", problem.message), ..problem }
    })
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, what Prometheus takes for a label name.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::fixture;

    fn problems(text: &str) -> Vec<String> {
        match crate::parse("a.yaml", text, &fixture::known()) {
            Ok(_) => Vec::new(),
            Err(report) => report.problems.iter().map(|p| format!("{}:{}: {p}", p.line, p.column)).collect(),
        }
    }

    #[test]
    fn the_same_probe_twice_is_refused_under_any_spelling() {
        let found = problems("probes:\n  - softirq\n  - conntrack\n  - name: net_softirq\n");
        assert_eq!(found, ["4:11: probes[2]: the probe net_softirq is in the list already, at line 2"]);
    }

    #[test]
    fn a_sink_that_needs_arguments_is_refused_without_them() {
        let wanted = ["2:5: sinks[0].args.url: is missing and has no default"];
        assert_eq!(problems("sinks:\n  - loki\n"), wanted);
        assert_eq!(problems("sinks:\n  - name: loki\n"), wanted);
    }

    #[test]
    fn label_names_must_be_valid_and_different() {
        let found = problems(
            "metrics:\n  labels:\n    node: a-b\n    pod: target_namespace\n  extra_labels:\n    __x: 'a'\n    le: b\n    a.b: c\n    target_pod: fine\n    target_namespace: taken\n",
        );
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(found[0].starts_with(r#"3:11: metrics.labels.node: "a-b" is not a label name"#));
        assert!(found[1].contains("is taken by metrics.labels.namespace"));
        assert!(found[2].contains("Prometheus keeps names"));
        assert!(found[3].contains("histograms and summaries use it"));
        assert!(found[4].contains(r#""a.b" is not a label name"#));
        assert!(found[5].starts_with("10:5: metrics.extra_labels.target_namespace"));
    }

    #[test]
    fn labels_of_pods_must_be_keys_that_become_different_labels() {
        let found = problems(
            "metrics:\n  labels: {workload: label_c}\n  extra_labels: {label_d: x}\n  pod_labels:\n    - app.kubernetes.io/name\n    - a b\n    - a/b/c\n    - app_kubernetes.io/name\n    - c\n    - d\n",
        );
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(
            found[0].starts_with(r#"6:7: metrics.pod_labels[1]: "a b" is not the key of a Kubernetes label"#)
        );
        assert!(found[1].starts_with(r#"7:7: metrics.pod_labels[2]: "a/b/c" is not the key"#));
        let name = r#""app_kubernetes.io/name" becomes the label "label_app_kubernetes_io_name""#;
        assert!(found[2].contains(name) && found[2].contains("taken by metrics.pod_labels[0]"));
        assert!(found[3].contains("taken by metrics.labels.workload"));
        assert!(found[4].contains("taken by metrics.extra_labels.label_d"));
        assert!(problems("metrics: {pod_labels: [app, tier, example.org/team-name]}").is_empty());
        let many: Vec<String> = (0..17).map(|n| format!("l{n}")).collect();
        assert_eq!(problems(&format!("metrics: {{pod_labels: [{}]}}", many.join(", "))).len(), 1);
    }

    #[test]
    fn a_runtime_is_auto_off_or_a_path() {
        for good in ["auto", "'off'", "/run/containerd/containerd.sock"] {
            assert!(problems(&format!("discovery: {{cri: {good}}}")).is_empty(), "{good}");
        }
        for bad in ["containerd", "''", "run/x.sock", "'unix:///run/x.sock'"] {
            assert_eq!(problems(&format!("discovery: {{cri: {bad}}}")).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_token_goes_out_encrypted_or_not_at_all() {
        for good in [
            "https://10.0.0.1:6443",
            "https://api.example:6443/",
            "http://127.0.0.1:8001",
            "http://[::1]:8001",
        ] {
            assert!(problems(&format!("discovery: {{cluster_server: '{good}'}}")).is_empty(), "{good}");
        }
        assert!(problems("discovery: {cluster_server: null}").is_empty());
        for bad in [
            "10.0.0.1:6443",
            "https://",
            "https://u:p@api",
            "https://api/path",
            "http://10.0.0.1:8001",
            "http://localhost.example:80",
            "http://127.0.0.1.example:80",
            "ftp://api",
            "",
        ] {
            assert_eq!(problems(&format!("discovery: {{cluster_server: '{bad}'}}")).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_prefix_must_be_able_to_start_a_metric_name() {
        for bad in ["''", "9a", "a-b", "a b", "é"] {
            assert!(problems(&format!("metrics: {{prefix: {bad}}}")).len() == 1, "{bad}");
        }
        assert!(problems("metrics: {prefix: _a9}").is_empty());
    }

    #[test]
    fn a_bad_address_comes_with_what_was_probably_meant() {
        for (bad, meant) in [
            (":9102", Some("0.0.0.0:9102")),
            ("localhost:9102", Some("127.0.0.1:9102")),
            ("'9102'", Some("0.0.0.0:9102")),
            ("10.0.0.1", Some("10.0.0.1:9102")),
            ("example.org:9102", None),
            ("0.0.0.0:99999", None),
        ] {
            let report = crate::parse("a.yaml", format!("listen: {bad}\n"), &fixture::known()).unwrap_err();
            assert_eq!(report.problems[0].suggestion.as_deref(), meant, "{report}");
            assert_eq!(report.problems.len(), 1);
        }
    }

    #[test]
    fn ipv6_addresses_are_accepted() {
        assert!(problems("listen: '[::1]:9102'\n").is_empty());
    }
}
