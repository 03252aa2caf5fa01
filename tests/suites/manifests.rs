//! What Kubernetes is given: each manifest is valid, says the same from kustomize and from Helm, and asks for no more
//! rights than the probes need.

use std::collections::BTreeSet;
use std::fs;

use netsonde_tests::agent::netsonde;
use netsonde_tests::manifests::{Manifests, repository, rights, script, strings, tool};
use netsonde_tests::{needs_programs, shell};
use serde_json::{Value, json};

const VALUES: [&str; 3] =
    ["", "deploy/helm/netsonde/ci/operator-values.yaml", "deploy/helm/netsonde/ci/least-values.yaml"];
const KUSTOMIZATIONS: [&str; 5] =
    ["base", "overlays/operator", "overlays/strict", "overlays/own-config", "overlays/cluster-peers"];

fn helm(values: &str) -> Manifests {
    if values.is_empty() { Manifests::helm(&[]) } else { Manifests::helm(&["--values", values]) }
}

/// Everything that is rendered, with a name for messages.
fn everything() -> Vec<(String, Manifests)> {
    let charts = VALUES.iter().map(|&values| (format!("helm {values}"), helm(values)));
    charts
        .chain(KUSTOMIZATIONS.iter().map(|&k| (format!("kustomize {k}"), Manifests::kustomize(k))))
        .collect()
}

/// What `kubernetes-validate --strict` says of a text.
fn validate(text: &str) -> (bool, String) {
    validate_for("1.37", text)
}

fn validate_for(version: &str, text: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    fs::write(file.path(), text).expect("written");
    let output =
        shell::output(tool("kubernetes-validate").args(["--strict", "-k", version]).arg(file.path()));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_manifest_is_valid() {
    for (name, manifests) in everything() {
        let (good, said) = validate(&manifests.text);
        assert!(good, "{name}: {said}");
        let passed = said.lines().filter(|line| line.contains(" passed for resource ")).count();
        let foreign = ["PodMonitor", "ServiceMonitor", "PrometheusRule"]
            .iter()
            .map(|kind| manifests.kind(kind).count())
            .sum::<usize>();
        assert_eq!(passed + foreign, manifests.all.len(), "{name}: {said}");
    }
}

#[test]
fn the_validator_finds_a_misspelt_key() {
    let base = Manifests::kustomize("base");
    let (good, said) = validate(&base.text.replace("hostPID:", "hostPid:"));
    assert!(!good && said.contains("hostPid"), "{said}");
}

#[test]
fn the_chart_passes_lint_with_every_set_of_values() {
    for values in VALUES {
        let mut lint = tool("helm");
        lint.args(["lint", "--strict", "deploy/helm/netsonde"]);
        if !values.is_empty() {
            lint.args(["--values", values]);
        }
        let said = shell::run(&mut lint);
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    }
}

#[test]
fn wrong_values_are_refused_with_their_place() {
    for (set, place) in [
        ("config.probes[0]=tpc", "/config/probes/0"),
        ("config.sinks[0].name=loki,config.sinks[0].args.uri=x", "/config/sinks/0"),
        ("config.metrics.names=kubscoop", "/config/metrics/names"),
        ("port=0", "/port"),
        ("tolerance=x", "tolerance"),
        ("extraCapabilities[0]=CAP_SYSLOG", "/extraCapabilities/0"),
        ("config.discovery.cluster_peers=true", "set clusterPeers.enabled"),
        ("clusterPeers.on=true", "clusterPeers"),
        ("clusterPeers.enabled=true,serviceAccount.create=false", "a service account of its own"),
        ("config.listen=x", "config.listen is made from address and port"),
    ] {
        let mut helm = tool("helm");
        helm.args(["template", "netsonde", "deploy/helm/netsonde", "--set", set]);
        let output = shell::output(&mut helm);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(place), "{set}: {said}");
    }
}

#[test]
fn what_is_made_is_current() {
    shell::run(&mut script("tests/setup/tools.sh"));
    let output = shell::output(script("deploy/render.sh").arg("--check"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_configuration_of_every_configmap_passes_netsonde_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, manifests) in everything() {
        let file = folder.path().join("netsonde.yaml");
        fs::write(&file, manifests.config()).expect("written");
        let file = file.to_str().expect("a plain path");
        let said = shell::run(&mut netsonde(&["check", file]));
        assert!(said.contains(": good, "), "{name}: {said}");
    }
    let default = helm("");
    let example = fs::read_to_string(repository().join("config/netsonde.yaml")).expect("it is there");
    assert!(
        default.config().contains(example.trim_end()),
        "the full commented configuration is in the ConfigMap"
    );
    for active in ["listen: \"0.0.0.0:9102\"\n", "sinks:\n- name: stdout\n"] {
        assert!(default.config().contains(active), "{}", default.config());
    }
}

/// The names of the probes that a configuration runs.
fn probes(manifests: &Manifests) -> Vec<String> {
    let config = Manifests::read(manifests.config()).all.pop().unwrap_or_default();
    match config.get("probes") {
        None => strings(&rights()["default"]),
        Some(list) => {
            let name = |entry: &Value| entry["name"].as_str().or(entry.as_str()).map(str::to_owned);
            list.as_array().expect("a list").iter().map(|e| name(e).expect("a probe has a name")).collect()
        }
    }
}

#[test]
fn the_container_has_exactly_the_capabilities_that_its_probes_need() {
    let rights = rights();
    for (name, manifests) in everything() {
        let mut needed: BTreeSet<_> = strings(&rights["agent"]).into_iter().collect();
        for probe in probes(&manifests) {
            needed.extend(strings(&rights["probes"][&probe]));
        }
        let has: BTreeSet<_> = manifests.capabilities().into_iter().collect();
        if name.contains("own-config") || name.contains("overlays/cluster-peers") {
            // The base's, for probes that are added later.
            assert!(has.is_superset(&needed), "{name}: {has:?} lacks some of {needed:?}");
        } else {
            if name.contains("operator-values") {
                needed.insert("SYSLOG".into());
            }
            assert_eq!(has, needed, "{name}");
        }
    }
    let least = helm(VALUES[2]).capabilities();
    assert_eq!(least, ["SYS_ADMIN", "SYS_PTRACE"]);
}

#[test]
fn the_unit_of_systemd_has_the_capabilities_of_the_daemonset() {
    let unit = fs::read_to_string(repository().join("deploy/systemd/netsonde.service")).expect("it is there");
    let line =
        unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("it is bounded");
    let mut unit: Vec<_> = line.split_whitespace().filter_map(|word| word.strip_prefix("CAP_")).collect();
    unit.sort_unstable();
    assert_eq!(unit, helm("").capabilities());
}

#[test]
fn the_guide_says_what_each_capability_is_for() {
    let guide = fs::read_to_string(repository().join("docs/guides/kubernetes.md")).expect("it is there");
    for capability in helm("").capabilities() {
        assert!(
            guide.contains(&format!("| `{capability}` |")),
            "docs/guides/kubernetes.md has no row for {capability}"
        );
    }
}

#[test]
fn the_container_is_shut_in_as_far_as_it_can_be() {
    for (name, manifests) in everything() {
        let security = &manifests.container()["securityContext"];
        for (key, value) in [
            ("privileged", json!(false)),
            ("allowPrivilegeEscalation", json!(false)),
            ("readOnlyRootFilesystem", json!(true)),
            ("runAsUser", json!(0)),
            ("appArmorProfile", json!({"type": "Unconfined"})),
        ] {
            assert_eq!(security[key], value, "{name}: {key}");
        }
        let profile = security["seccompProfile"]["type"].as_str().expect("a profile");
        assert!(["RuntimeDefault", "Localhost"].contains(&profile), "{name}: {profile}");
        let pod = &manifests.pod()["spec"];
        assert_eq!(pod["hostPID"], true, "{name}");
        assert_eq!(pod["hostNetwork"], name.contains("operator-values"), "{name}");
        assert_eq!(pod["automountServiceAccountToken"], asks_the_api_server(&name), "{name}");
        for account in manifests.kind("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{name}");
        }
        for mount in manifests.container()["volumeMounts"].as_array().expect("mounts") {
            let writable = mount["mountPath"] == "/var/lib/netsonde";
            assert_eq!(mount["readOnly"] == true, !writable, "{name}: {mount}");
            assert!(mount.get("subPath").is_none(), "{name}: {mount}");
        }
        let container = manifests.container();
        for limits in ["requests", "limits"].iter().filter(|_| !name.contains("least")) {
            for what in ["cpu", "memory"] {
                assert!(container["resources"][limits][what].is_string(), "{name}: {limits} {what}");
            }
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "metrics", "{name}: {probe}");
        }
    }
}

/// Those that are to name the pods of other nodes.
fn asks_the_api_server(name: &str) -> bool {
    name.contains("operator-values") || name.contains("cluster-peers")
}

#[test]
fn who_asks_the_api_server_may_list_and_watch_pods_and_nothing_else() {
    for (name, manifests) in everything() {
        let config = Manifests::read(manifests.config()).all.pop().unwrap_or_default();
        let asks = asks_the_api_server(&name);
        assert_eq!(config["discovery"]["cluster_peers"] == true, asks, "{name}");
        let rbac = |document: &&Value| document["apiVersion"] == "rbac.authorization.k8s.io/v1";
        assert_eq!(manifests.all.iter().filter(rbac).count(), if asks { 2 } else { 0 }, "{name}");
        if !asks {
            continue;
        }
        let (role, binding) = (manifests.only("ClusterRole"), manifests.only("ClusterRoleBinding"));
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]);
        assert_eq!(role["rules"], rules, "{name}");
        assert!(role.get("aggregationRule").is_none(), "{name}");
        assert_eq!(
            binding["roleRef"],
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]}),
            "{name}"
        );
        let account = &manifests.pod()["spec"]["serviceAccountName"];
        assert_eq!(
            binding["subjects"],
            json!([{"kind": "ServiceAccount", "name": account, "namespace": "netsonde"}]),
            "{name}"
        );
    }
}

#[test]
fn what_points_at_the_pods_meets_them() {
    for (name, manifests) in everything() {
        let pod = &manifests.pod()["metadata"]["labels"];
        let port = &manifests.container()["ports"][0];
        let meets = |selector: &Value| {
            let wanted = selector.as_object().expect("a selector");
            assert!(
                !wanted.is_empty() && wanted.iter().all(|(key, value)| pod[key] == *value),
                "{name}: {selector}"
            );
        };
        meets(&manifests.only("DaemonSet")["spec"]["selector"]["matchLabels"]);
        let config = manifests.only("ConfigMap");
        assert_eq!(
            manifests.pod()["spec"]["volumes"][0]["configMap"]["name"],
            config["metadata"]["name"],
            "{name}"
        );
        assert!(
            manifests.config().contains(&format!("listen: \"0.0.0.0:{}\"", port["containerPort"])),
            "{name}"
        );
        for service in manifests.kind("Service") {
            meets(&service["spec"]["selector"]);
            assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"], "{name}");
        }
        for policy in manifests.kind("NetworkPolicy") {
            meets(&policy["spec"]["podSelector"]["matchLabels"]);
            assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], port["name"], "{name}");
        }
        for monitor in manifests.kind("PodMonitor") {
            meets(&monitor["spec"]["selector"]["matchLabels"]);
            assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], port["name"], "{name}");
        }
        for monitor in manifests.kind("ServiceMonitor") {
            let service = &manifests.only("Service");
            let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().expect("a selector");
            assert!(wanted.iter().all(|(k, v)| service["metadata"]["labels"][k] == *v), "{name}");
            assert_eq!(
                monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"],
                "{name}"
            );
        }
        let monitored = manifests.all.iter().any(|d| d["apiVersion"] == "monitoring.coreos.com/v1");
        let annotations = &manifests.pod()["metadata"]["annotations"];
        let plain = annotations["prometheus.io/port"].as_str();
        let wanted = (!monitored && !name.contains("least")).then_some("9102");
        assert_eq!(plain, wanted, "{name}: scraped twice, or not at all");
    }
}

#[test]
fn the_rules_of_the_operator_are_those_of_prometheus() {
    needs_programs!("promtool");
    let shipped = |name: &str| {
        let path = repository().join("deploy/prometheus").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Manifests::read(&text).all.remove(0)["groups"].as_array().expect("groups").clone()
    };
    let wanted = [shipped("netsonde.rules.yml"), shipped("netsonde.alerts.yml")].concat();
    for manifests in [helm(VALUES[1]), Manifests::kustomize("overlays/operator")] {
        let spec = &manifests.only("PrometheusRule")["spec"];
        assert_eq!(spec["groups"], json!(wanted));
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        // JSON is YAML.
        fs::write(file.path(), spec.to_string()).expect("written");
        shell::run(std::process::Command::new("promtool").args(["check", "rules"]).arg(file.path()));
    }
}

#[test]
fn older_clusters_are_told_of_apparmor_by_an_annotation() {
    let old = Manifests::helm(&["--kube-version", "1.28.0"]);
    let (good, said) = validate_for("1.28", &old.text);
    assert!(good, "{said}");
    let annotations = &old.pod()["metadata"]["annotations"];
    assert_eq!(annotations["container.apparmor.security.beta.kubernetes.io/netsonde"], "unconfined");
    assert!(old.container()["securityContext"].get("appArmorProfile").is_none());
}

#[test]
fn kustomize_and_helm_describe_one_daemonset() {
    // Helm's stamp is all that tells them apart.
    let mut chart = Manifests::helm(&[]).only("DaemonSet").clone();
    let mut base = Manifests::kustomize("base").only("DaemonSet").clone();
    for daemonset in [&mut chart, &mut base] {
        daemonset["metadata"].as_object_mut().expect("metadata").remove("namespace");
        for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
            let labels = daemonset.pointer_mut(labels).and_then(Value::as_object_mut).expect("labels");
            labels.remove("app.kubernetes.io/managed-by");
        }
    }
    assert_eq!(chart, base);
}
