#!/usr/bin/env bash
# Runs every check and counts: the last line is "N passed, N failed, N skipped", and nothing can be skipped unseen.
# `make test` calls it. With arguments, only those steps: run.sh unit lab. ALSO="kernels" adds to all the others the one
# that boots other kernels in VMs, some suites only; `make test-kernels` runs them all.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
script=tests/setup/run.sh

export PATH=$PATH:/usr/sbin:/sbin
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
jobs=$(nproc)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export NETSONDE_SKIPS=$scratch/skips
: >"$NETSONDE_SKIPS"
: >"$scratch/failed"
: >"$scratch/ignored"
: >"$scratch/again"
exact=false
passed=0
failed=0

wanted=" ${*:-format clippy unit golden lab prometheus deploy docs arm64 ${ALSO:-}} "
want() { [[ $wanted == *" $1 "* ]]; }

step() { printf '\n== %s\n' "$1"; }

fail() {
    failed=$((failed + $1))
    printf 'FAILED: %s\n' "$2" >>"$scratch/failed"
}

# check NAME SECONDS COMMAND...: one check that is right or wrong.
check() {
    local name=$1 limit=$2
    shift 2
    step "$name"
    if timeout "$limit" "$@" </dev/null; then
        passed=$((passed + 1))
    else
        fail 1 "$name"
    fi
}

# Some vendors' kernels run no tracing program while process 1 has the CPU, so there an exact count of packets is now and
# then short, which no test can prevent (probes-ebpf/src/runtime/kernel.rs). Tests of such counts that fail have a second
# and a third try on those kernels, and the result names them.
patched() { grep -qaw init_owned /sys/kernel/btf/vmlinux; }

# again LOG SECONDS ARGUMENTS...: runs the failed tests of a log alone, and those that fail once more. True where all of them
# pass then.
again() {
    local log=$1 limit=$2 try status failed words=() word
    shift 2
    for word in "$@"; do
        [ "$word" != -- ] || break
        words+=("$word")
    done
    for try in second third; do
        mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
        [ "${#failed[@]}" -gt 0 ] || return 1
        step "$try time: ${failed[*]}"
        timeout "$limit" cargo test --workspace --locked --no-fail-fast -j "$jobs" "${words[@]}" -- --test-threads=1 \
            --exact "${failed[@]}" </dev/null 2>&1 | tee "$scratch/again.$try"
        status=${PIPESTATUS[0]}
        log=$scratch/again.$try
        sed -n "s/^test \(.*\) \.\.\. ok$/AGAIN: \1: passed the $try time/p" "$log" >>"$scratch/again"
        [ "$status" -ne 0 ] || return 0
    done
    return 1
}

# tests NAME SECONDS ARGUMENTS...: `cargo test`, whose results are counted one by one.
tests() {
    local name=$1 limit=$2 log=$scratch/log status ok bad ignored
    shift 2
    step "$name"
    timeout "$limit" cargo test --workspace --locked --no-fail-fast -j "$jobs" "$@" </dev/null 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    read -r ok bad ignored < <(awk '
        /^test result: / { ok += $4; bad += $6; ignored += $8 }
        END { print ok + 0, bad + 0, ignored + 0 }' "$log")
    passed=$((passed + ok))
    # libtest says why a test is ignored; no test may be ignored without a reason.
    sed -n 's/^test \(.*\) \.\.\. ignored,\{0,1\} *\(.*\)$/SKIPPED: \1: \2/p' "$log" >>"$scratch/ignored"
    if [ "$(grep -c '^test .* \.\.\. ignored' "$log")" -ne "$ignored" ]; then
        fail 1 "$name: $ignored ignored tests, not all of them named"
    fi
    if [ "$bad" -gt 0 ] && $exact && patched && again "$log" "$limit" "$@"; then
        passed=$((passed + bad))
    elif [ "$bad" -gt 0 ]; then
        fail "$bad" "$name: $(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | tr '\n' ' ')"
    elif [ "$status" -ne 0 ]; then
        fail 1 "$name: cargo test ended with $status (124: it took longer than $limit s)"
    elif [ "$ok" -eq 0 ] && [ "$name" != doctests ]; then
        fail 1 "$name: no test ran"
    fi
}

# kernels SECONDS SUITE...: suites on other kernels, each in a VM, which counts for itself. Where VMs cannot be had, that is
# a skip.
kernels() {
    local limit=$1 log=$scratch/log ok bad ignored meta
    shift
    step kernels
    if [ "$(uname -m)" != x86_64 ]; then
        echo "SKIPPED: kernels: those under test are for x86-64" | tee -a "$scratch/ignored"
        return
    elif ! tests/setup/packages.sh kernels </dev/null; then
        echo "SKIPPED: kernels: qemu, or what makes a VM, is missing and cannot be installed" | tee -a "$scratch/ignored"
        return
    fi
    for meta in $(sed -n 's/^kernels=(\(.*\))$/\1/p' tests/kernels/run.sh); do
        if ! tests/kernels/fetch.sh "$meta" "${NETSONDE_BIN%/debug/*}/kernels" >/dev/null; then
            echo "SKIPPED: kernels: $meta cannot be fetched" | tee -a "$scratch/ignored"
            return
        fi
    done
    SUITES="$*" timeout --kill-after 10 "$limit" tests/kernels/run.sh </dev/null 2>&1 | tee "$log"
    # The last line says how many.
    if ! read -r ok bad ignored < <(tail -n 1 "$log" |
        sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p'); then
        fail 1 "kernels: no verdict within $limit s"
        return
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    sed -n 's/^FAILED: /FAILED: kernels: /p' "$log" >>"$scratch/failed"
    sed -n 's/^SKIPPED: /SKIPPED: kernels: /p' "$log" >>"$scratch/ignored"
    if [ "$(grep -c '^SKIPPED: ' "$log")" -lt "$ignored" ]; then
        fail 1 "kernels: $ignored skipped tests, not all of them named"
    fi
}

# Every suite that tests/Cargo.toml declares, by name.
suites() { sed -n 's|^path = "suites/\(.*\)\.rs"$|\1|p' tests/Cargo.toml | sed 's|/main$||'; }

# Those that only the VMs run.
only_vms=$(sed -n 's/^only_vms="\(.*\)"$/\1/p' tests/kernels/run.sh)

# The lab's suites that run here and side by side: those that this script does not name and the VMs do not have alone.
labs() {
    local suite
    for suite in $(suites | grep '^lab_'); do
        grep -Eq -- "--test $suite( |\$)" "$script" || grep -qw "$suite" <<<"$only_vms" || printf -- '--test %s ' "$suite"
    done
}

# Not `cargo fmt`: it does not see the probes, which build.rs includes.
# Files that are deleted and not yet committed are listed as cached too.
format() {
    comm -z -23 <(git ls-files -z --cached --others --exclude-standard -- '*.rs' | sort -zu) \
        <(git ls-files -z --deleted | sort -zu) | xargs -0 rustfmt --edition 2024 --check
}
export -f format

want format && check format 120 bash -c format
want clippy && check clippy 1200 cargo clippy --workspace --all-targets --locked -j "$jobs" -- -D warnings

step build
if ! cargo build --workspace --bins --locked -j "$jobs" </dev/null; then
    fail 1 build
fi
NETSONDE_BIN=$(cargo metadata --format-version 1 --no-deps --locked |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/debug/netsonde
export NETSONDE_BIN

want unit && tests unit 1200 --lib --bins
want unit && tests doctests 600 --doc # there may be none
want golden && tests golden 300 --test golden
if want lab; then
    tests reference 300 --test reference
    tests http 300 --test http --test web
    tests "bad input" 300 --test bad_input --test reload
    tests sinks 300 --test sinks
    exact=true
    # shellcheck disable=SC2046 # a list of words
    tests lab 1200 $(labs)
    # One at a time: a flood in one would fill the ring buffers that another reads.
    tests latency 600 --test lab_latency -- --test-threads=1
    # One at a time: each runs a container runtime.
    tests daemonset 600 --test daemonset -- --test-threads=1
    exact=false
    # One at a time: these count the agent's descriptors and watch how fast namespaces go.
    tests namespaces 600 --test namespaces -- --test-threads=1
    # One at a time: each has a containerd of its own.
    tests pods 900 --test pods -- --test-threads=1
    tests cluster 300 --test cluster
fi
want prometheus && tests prometheus 300 --test prometheus
want prometheus && tests rules 300 --test rules
# One at a time: it watches that a quiet agent raises no alert.
want prometheus && tests alerts 600 --test alerts -- --test-threads=1
want prometheus && tests dashboards 600 --test dashboards
want prometheus && tests logql 300 --test logql
want deploy && tests deployment 600 --test manifests --test package
want docs && check docs 120 make --no-print-directory docs-check
want arm64 && check arm64 120 tests/setup/arm64.sh
# What the kernels differ in. At most some minutes for each, of which there are two.
want kernels && kernels 900 lab_rungs lab_netem lab_conntrack lab_ipvs

# A suite that is declared and run neither above nor in the VMs would be silent.
for suite in $(suites | grep -v '^lab_'); do
    grep -Eq -- "--test $suite( |\$)" "$script" || fail 1 "$script does not run the suite $suite"
done

# A test that noted its skip has passed in the eyes of libtest.
noted=$(grep -c '' "$NETSONDE_SKIPS")
skipped=$((noted + $(grep -c '' "$scratch/ignored")))
passed=$((passed - noted))

step result
cat "$scratch/failed" "$scratch/again" "$scratch/ignored" "$NETSONDE_SKIPS"
mkdir -p target
echo "$passed passed, $failed failed, $skipped skipped" | tee target/test-result
[ "$failed" -eq 0 ]
