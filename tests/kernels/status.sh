#!/usr/bin/env bash
# Starts an agent, waits until it is ready and writes its /status into a file; its log goes beside it.
# Usage: status.sh NETSONDE CONFIG FILE   (in a VM, and as root on this machine)
set -euo pipefail

log=$3.log
"$1" run --config "$2" --listen 127.0.0.1:0 2>"$log" &
agent=$!
trap 'kill $agent 2>/dev/null || true; wait $agent || true' EXIT

left=240
until port=$(sed -n 's/.*serving .*address=127\.0\.0\.1:\([0-9]*\).*/\1/p' "$log") && [ -n "$port" ]; do
    left=$((left - 1))
    if [ "$left" -eq 0 ] || ! kill -0 $agent 2>/dev/null; then
        echo "the agent did not get ready:" >&2
        cat "$log" >&2
        exit 1
    fi
    sleep 0.5
done
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /status HTTP/1.0\r\n\r\n' >&3
# Without the head, which ends with an empty line.
sed '1,/^\r$/d' <&3 >"$3"
grep -q '"kernel"' "$3" || { echo "the agent told no status" >&2; exit 1; }
