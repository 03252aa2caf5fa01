#!/bin/sh
# Prints the PrometheusRule of the Prometheus operator, made from netsonde.rules.yml and netsonde.alerts.yml.
# prometheusrule.yaml beside it is what it prints; tests/suites/rules.rs compares them.
set -eu
cd "$(dirname "$0")"
cat <<'HEAD'
# Made by prometheusrule.sh from netsonde.rules.yml and netsonde.alerts.yml; do not edit.
# The labels must be those that the operator's Prometheus selects by (ruleSelector).
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: netsonde
  namespace: netsonde
  labels:
    app.kubernetes.io/name: netsonde
spec:
  groups:
HEAD
for file in netsonde.rules.yml netsonde.alerts.yml; do
    sed -n '/^groups:$/,$ {
        /^groups:$/d
        s/^/  /
        p
    }' "$file"
done
