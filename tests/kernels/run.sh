#!/usr/bin/env bash
# Runs suites of the lab on Debian's kernels, each in a VM, and counts: the last line is "N passed, N failed, N skipped".
# `make test-kernels` calls it. With arguments, only those kernels: run.sh linux-image-cloud-amd64
#
# What each suite did is kept in target/kernels/results until it is run again. When the last run of every suite on every
# kernel was good, and as root, it writes docs/reference/kernels.md too.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/kernels

# Debian's names for its kernels 6.1 and 6.12.
kernels=(linux-image-cloud-amd64 linux-image-6.12-cloud-amd64)
whole=("${kernels[@]}")
[ $# -eq 0 ] || kernels=("$@")
every="lab_rungs lab_relay lab_ebpf lab_events lab_events_tcp lab_reading lab_traffic lab_processes"
every+=" lab_latency lab_queues lab_sockets lab_softirq lab_flow lab_block lab_virtio"
every+=" lab_listeners lab_forward lab_places lab_chains"
# These need what the machine's own kernel may not have, or change it; tests/setup/run.sh leaves them to this script.
only_vms="lab_netem lab_conntrack lab_ipvs"
every+=" $only_vms"
# Fewer, for a look at one: SUITES=lab_ebpf make test-kernels
suites="${SUITES:-$every}"
# For one VM. Emulated on two CPUs it takes ten to twenty minutes.
limit=2400

export PATH=$PATH:/usr/sbin:/sbin
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
[ "$(uname -m)" = x86_64 ] || { echo "the kernels under test are for x86-64" >&2; exit 1; }
target=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)
store=$target/kernels
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0
fail() {
    failed=$((failed + $1))
    echo "FAILED: $2" >>"$scratch/failed"
}

# count KERNEL RESULTS SUITE: adds what one suite told.
count() {
    local log=$2/$3.log status ok bad ignored
    status=$(cat "$2/$3.status" 2>/dev/null || echo missing)
    if ! grep -q '^test result: ' "$log" 2>/dev/null; then
        fail 1 "$1: $3 came to no verdict (status $status)"
        return
    fi
    read -r ok bad ignored < <(awk '
        /^test result: / { ok += $4; bad += $6; ignored += $8 }
        END { print ok + 0, bad + 0, ignored + 0 }' "$log")
    here_passed=$((here_passed + ok))
    here_skipped=$((here_skipped + ignored))
    sed -n 's/^test \(.*\) \.\.\. ignored,\{0,1\} *\(.*\)$/SKIPPED: \1: \2/p' "$log" >>"$scratch/skipped"
    if [ "$bad" -gt 0 ]; then
        fail "$bad" "$1: $3: $(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | tr '\n' ' ')"
    elif [ "$ok" -eq 0 ] || [ "$status" != 0 ]; then
        fail 1 "$1: $3: $ok tests ran, and it ended with $status"
    fi
}

# boot: the VM of $release, and whether it ran to its end.
boot() {
    setpriv --pdeathsig KILL -- "$here/boot.sh" "$store/$release" "$scratch/initramfs" "$results" "$limit" 2>&1 |
        tee "$scratch/console"
}

# boot_again: the same. An emulated CPU now and then runs an instruction of a tracepoint that another one is just patching,
# which ends the kernel ("Oops: int3" in whatever ran there): then it is booted once more.
boot_again() {
    boot && return
    grep -q 'Oops: int3' "$scratch/console" || return 1
    printf '== %s: once more\n' "$release"
    boot
}

printf '\n== build\n'
cargo build --locked -j "$(nproc)" -p netsonde -p netsonde-tests --bins
wanted=()
for suite in $suites; do
    wanted+=(--test "$suite")
done
mapfile -t executables < <(cargo test --locked -j "$(nproc)" -p netsonde-tests "${wanted[@]}" \
    --no-run --message-format=json 2>"$scratch/build" |
    jq -r 'select(.reason == "compiler-artifact" and (.target.kind | index("test"))) | .executable // empty')
[ $((2 * ${#executables[@]})) -eq ${#wanted[@]} ] || { cat "$scratch/build" >&2; exit 1; }
netsonde=$target/debug/netsonde
# Every probe, also those that are off without being asked for.
"$netsonde" probes --output json 2>/dev/null | jq '{node_name: "kernels", probes: [.[].name]}' >"$scratch/config.yaml"

for meta in "${kernels[@]}"; do
    printf '\n== %s\n' "$meta"
    here_passed=0 here_skipped=0 before=$failed start=$SECONDS
    release=$("$here/fetch.sh" "$meta" "$store") || { fail 1 "$meta cannot be fetched"; continue; }
    "$here/initramfs.sh" "$store/$release" "$netsonde" "$scratch/config.yaml" "$target/debug/netsonde-lab-worker" \
        "$scratch/initramfs" "${executables[@]}" || { fail 1 "$release: no initramfs"; continue; }
    results=$store/results/$release
    # The others keep what they did the last time.
    [ "$suites" != "$every" ] || rm -rf "$results"
    boot_again || fail 1 "$release: the VM did not finish"
    for suite in $suites; do
        count "$release" "$results" "$suite"
    done
    if [ -s "$results/broken" ]; then
        fail 1 "$release: $(tr '\n' ' ' <"$results/broken")"
    fi
    noted=$(grep -c '' "$results/skips" 2>/dev/null || true)
    # A test that noted its skip has passed in the eyes of libtest.
    here_passed=$((here_passed - ${noted:-0}))
    here_skipped=$((here_skipped + ${noted:-0}))
    cat "$results/skips" >>"$scratch/skipped" 2>/dev/null || true
    passed=$((passed + here_passed))
    skipped=$((skipped + here_skipped))
    echo "$release: $here_passed passed, $((failed - before)) failed, $here_skipped skipped, in $((SECONDS - start)) s" |
        tee -a "$scratch/kernels"
done

# Whether the last run of every suite on every kernel was good; and where what they told is.
statuses=() notes=()
complete() {
    local meta release suite missing=""
    for meta in "${whole[@]}"; do
        release=$("$here/fetch.sh" "$meta" "$store") || return 1
        for suite in $every; do
            [ "$(cat "$store/results/$release/$suite.status" 2>/dev/null)" = 0 ] || missing+=" $suite ($release)"
        done
        statuses+=("$store/results/$release/status.json")
        notes+=("$store/results/$release/rungs")
    done
    [ -z "$missing" ] || echo "docs/reference/kernels.md is not written: not passed the last time or never run:$missing"
    [ -z "$missing" ]
}

# Every rung of every ladder must have held somewhere: in a VM, or on the machine's own kernel, which is looked at now.
rungs() {
    local suite fault own="this machine's own kernel"
    printf '\n== %s\n' "$own"
    suite=$(cargo test --locked -j "$(nproc)" -p netsonde-tests --test lab_rungs --no-run --message-format=json 2>/dev/null |
        jq -r 'select(.reason == "compiler-artifact" and (.target.kind | index("test"))) | .executable // empty')
    mkdir "$scratch/own"
    {
        NETSONDE_BIN=$netsonde NETSONDE_RUNGS=$scratch/rungs NETSONDE_SKIPS=$scratch/own/skips RUST_BACKTRACE=0 \
            timeout 300 "$suite" --test-threads=1 </dev/null && echo 0 || echo $?
    } >"$scratch/own/lab_rungs.log" 2>&1
    tail -n 1 "$scratch/own/lab_rungs.log" >"$scratch/own/lab_rungs.status"
    cat "$scratch/own/lab_rungs.log"
    here_passed=0 here_skipped=0
    count "$own" "$scratch/own" lab_rungs
    passed=$((passed + here_passed))
    [ "$failed" -eq 0 ] || return 0
    jq -s --rawfile unreached "$here/unreached" -f "$here/rungs.jq" "${notes[@]}" "$scratch/rungs" >"$scratch/ladders"
    while read -r fault; do
        fail 1 "$fault"
    done < <(jq -r '.faults[]' "$scratch/ladders")
}
page=no
if [ "$(id -u)" -ne 0 ]; then
    echo "docs/reference/kernels.md is written only by root, who may load programs into this kernel"
elif [ "$failed" -eq 0 ]; then
    complete && page=yes
    if [ $page = yes ] || { [ $# -eq 0 ] && [[ " $suites " == *" lab_rungs "* ]]; }; then
        rungs
    fi
fi

printf '\n== result\n'
if [ $page = yes ] && [ "$failed" -eq 0 ]; then
    "$here/status.sh" "$netsonde" "$scratch/config.yaml" "$scratch/host.json"
    jq -rs --arg suites "$every" -f "$here/table.jq" "${statuses[@]}" "$scratch/host.json" >"$scratch/kernels.md"
    jq -r .table "$scratch/ladders" >>"$scratch/kernels.md"
    cat "$here/not-run.md" >>"$scratch/kernels.md"
    cp "$scratch/kernels.md" docs/reference/kernels.md
fi
for file in failed skipped kernels; do
    if [ -e "$scratch/$file" ]; then
        cat "$scratch/$file"
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
