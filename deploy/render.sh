#!/usr/bin/env bash
# Makes what is made in deploy/: the chart's copies of what the program says (configuration, rights, schema) and of
# Prometheus's rules, and from the chart the manifests for kustomize. `make manifests` calls it.
# Usage: render.sh            writes them
#        render.sh --check    ends with 1 and a difference where a file is not what it would write
set -euo pipefail
cd "$(dirname "$0")/.."

netsonde=${NETSONDE_BIN:-target/debug/netsonde}
helm=target/tools/bin/helm
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cp -r deploy/helm/netsonde "$scratch/chart"
"$netsonde" docs example >"$scratch/chart/files/netsonde.yaml"
"$netsonde" docs rights >"$scratch/chart/files/rights.yaml"
cp deploy/prometheus/netsonde.rules.yml deploy/prometheus/netsonde.alerts.yml "$scratch/chart/files/"
# The configuration's schema keeps an id of its own, so that its references find their targets.
"$netsonde" schema | jq --slurpfile values deploy/helm/values.schema.json '
    ({"$id": "netsonde-configuration"} + del(."$schema")) as $configuration
    | $values[0] | ."$defs".netsonde = $configuration' >"$scratch/chart/values.schema.json"

# template FILE ARGUMENTS...: the chart as kustomize has it, with this program's words on top.
template() {
    local file=$1
    shift
    {
        echo "# Made from deploy/helm/netsonde by \`make manifests\`; do not edit."
        # helm's stamp names the tool and not where the manifest comes from.
        "$helm" template netsonde "$scratch/chart" --namespace netsonde --kube-version 1.30 "$@" |
            sed -e '/^# Source: /d' -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e 's/ *$//'
    } >"$scratch/$file"
}
template base.yaml
template podmonitor.yaml --show-only templates/podmonitor.yaml --set podMonitor.enabled=true
template servicemonitor.yaml --show-only templates/servicemonitor.yaml --set serviceMonitor.enabled=true
template clusterpeers.yaml --show-only templates/clusterpeers.yaml --set clusterPeers.enabled=true
template prometheusrule.yaml --show-only templates/prometheusrule.yaml --set prometheusRule.enabled=true

# Where each goes.
made=(
    "chart/files/netsonde.yaml deploy/helm/netsonde/files/netsonde.yaml"
    "chart/files/rights.yaml deploy/helm/netsonde/files/rights.yaml"
    "chart/files/netsonde.rules.yml deploy/helm/netsonde/files/netsonde.rules.yml"
    "chart/files/netsonde.alerts.yml deploy/helm/netsonde/files/netsonde.alerts.yml"
    "chart/values.schema.json deploy/helm/netsonde/values.schema.json"
    "base.yaml deploy/kustomize/base/netsonde.yaml"
    "podmonitor.yaml deploy/kustomize/components/podmonitor/podmonitor.yaml"
    "clusterpeers.yaml deploy/kustomize/components/cluster-peers/clusterpeers.yaml"
    "servicemonitor.yaml deploy/kustomize/components/servicemonitor/servicemonitor.yaml"
    "prometheusrule.yaml deploy/kustomize/components/prometheusrule/prometheusrule.yaml"
)
stale=0
for pair in "${made[@]}"; do
    read -r from to <<<"$pair"
    if [ "${1:-}" = --check ]; then
        diff -u "$to" "$scratch/$from" || {
            echo "$to is out of date: run make manifests" >&2
            stale=1
        }
    else
        mkdir -p "$(dirname "$to")"
        cp "$scratch/$from" "$to"
    fi
done
exit "$stale"
