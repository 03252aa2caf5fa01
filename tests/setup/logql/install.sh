#!/bin/sh
# Puts Grafana's parser of LogQL, as package-lock.json pins it, into target/logql; does nothing where it is.
# The suite logql calls it. Usage: install.sh TARGET
set -eu

here=$(cd "$(dirname "$0")" && pwd)
into=$1/logql

# Written last, so that an installation that was broken off is done again.
if cmp -s "$here/package-lock.json" "$into/installed"; then
    exit 0
fi
mkdir -p "$into"
# Several suites may begin at once.
exec 9>"$into/lock"
flock 9
if ! cmp -s "$here/package-lock.json" "$into/installed"; then
    cp "$here/package.json" "$here/package-lock.json" "$into/"
    (cd "$into" && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error)
    cp "$here/package-lock.json" "$into/installed"
fi
