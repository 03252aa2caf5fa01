#!/bin/busybox sh
# shellcheck shell=dash # the nearest that it knows
#
# The first process of a VM: makes it a machine, runs every suite and sends what came of it through the second serial
# port. The first one is the console, for people. It runs nowhere else.
set -u
export PATH=/usr/bin:/bin
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS0 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/netns /results
while read -r module; do
    insmod "$module" || echo "cannot load $module" | tee -a /results/broken
done </modules/order
hostname vm
ip link set lo up

# Words on the kernel's command line that it does not know are here: how slow this CPU is.
export NETSONDE_SLOW=${slow:-1}
export NETSONDE_BIN=/lab/netsonde NETSONDE_SKIPS=/results/skips NETSONDE_RUNGS=/results/rungs RUST_BACKTRACE=0
# That nobody else's machine is this one: a suite may change its limits.
export NETSONDE_VM=1
: >/results/skips

echo "== $(uname -r)"
/lab/status.sh /lab/netsonde /lab/every-probe.yaml /results/status.json || echo "no /status" | tee -a /results/broken
for suite in /lab/suites/*; do
    name=${suite##*/}
    echo "== $name"
    # One after the other: a test and its agent keep two CPUs busy.
    start=$(cut -d. -f1 /proc/uptime)
    { "$suite" --test-threads=1; echo $? >"/results/$name.status"; } 2>&1 | tee "/results/$name.log"
    echo "$name $(($(cut -d. -f1 /proc/uptime) - start)) s" >>/results/times
done
dmesg >/results/dmesg

stty -F /dev/ttyS1 raw
tar -czf /dev/ttyS1 -C /results .
echo "== over"
poweroff -f
