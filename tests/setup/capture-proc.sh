#!/usr/bin/env bash
# Captures the frozen /proc of the golden test: the host and two namespaces with a little traffic, one process each.
# Usage, as root: capture-proc.sh FOLDER   (then: UPDATE_GOLDEN=1 cargo test -p netsonde-tests --test golden)
#
# What could tell of the machine is replaced (names of processes, cgroups, inode numbers, descriptors' targets), and
# what is not needed is not copied. A process of this script's stands for process 1, which may not let itself be read.
set -euo pipefail

out=$1
[ "$(id -u)" -eq 0 ] || { echo "capture-proc.sh makes namespaces: it must run as root" >&2; exit 1; }
[ ! -e "$out" ] || { echo "$out is there already" >&2; exit 1; }

a=golden-a-$$ b=golden-b-$$ keep=()
tidy() {
    [ ${#keep[@]} -eq 0 ] || kill "${keep[@]}" 2>/dev/null || true
    ip netns del "$a" 2>/dev/null || true
    ip netns del "$b" 2>/dev/null || true
}
trap tidy EXIT

ip netns add "$a"
ip netns add "$b"
ip -n "$a" link set lo up
ip -n "$a" link add eth0 type veth peer name eth0 netns "$b"
ip -n "$a" addr add 10.9.0.1/24 dev eth0
ip -n "$b" addr add 10.9.0.2/24 dev eth0
ip -n "$a" link set eth0 up
ip -n "$b" link set eth0 up

# Three datagrams to a closed port, one refused connection, and one process in each namespace.
# shellcheck disable=SC2016 # for the inner shell
nsenter --net="/run/netns/$a" -- bash -c '
    for i in 1 2 3; do echo "datagram $i" >/dev/udp/10.9.0.2/6000 || true; sleep 0.1; done
    : </dev/tcp/10.9.0.2/6001 || true' 2>/dev/null || true
hold='head -c 100 /dev/zero >/dev/null; exec 3<>/dev/udp/127.0.0.1/9 4</dev/null; exec sleep 60'
nsenter --net="/run/netns/$a" -- bash -c "$hold" </dev/null &
keep+=($!)
nsenter --net="/run/netns/$b" -- sleep 60 </dev/null &
keep+=($!)
bash -c "$hold" </dev/null &
keep+=($!)
sleep 0.5

# capture PID AS COMM INODE CGROUP FILE...
capture() {
    local pid=$1 as=$2 comm=$3 inode=$4 cgroup=$5 fd link
    shift 5
    mkdir -p "$out/$as/net" "$out/$as/fd" "$out/$as/ns"
    # Fields that move from run to run or tell of the machine become zero; 22 is the start time.
    sed 's/^[0-9]* (.*) //' "/proc/$pid/stat" |
        awk -v pid="$as" -v comm="$comm" '{
            $1 = "S"; $2 = (pid == 1) ? 0 : 1; $3 = $4 = pid; $20 = 100 * pid
            for (i = 8; i <= NF; i++) if (i != 20 && i != 17 && i != 18 && i != 22 && i != 23) $i = 0
            $21 = 4096000; $22 = 100; $23 = "18446744073709551615"
            print pid, "(" comm ")", $0 }' >"$out/$as/stat"
    printf '%s\n' "$cgroup" >"$out/$as/cgroup"
    cp "/proc/$pid/io" "/proc/$pid/limits" "$out/$as/"
    chmod u+rw "$out/$as/io" "$out/$as/limits"
    for fd in "/proc/$pid/fd/"[0-9]; do
        link=$(readlink "$fd") || continue
        case $link in
        socket:*) link="socket:[$((as * 1000 + ${fd##*/}))]" ;;
        pipe:*) link="pipe:[$((as * 1000 + ${fd##*/}))]" ;;
        anon_inode:*) ;;
        *) link=/dev/null ;;
        esac
        ln -s "$link" "$out/$as/fd/${fd##*/}"
    done
    ln -s "net:[$inode]" "$out/$as/ns/net"
    for file in "$@"; do
        if [ -e "/proc/$pid/net/$file" ]; then
            cp "/proc/$pid/net/$file" "$out/$as/net/$file"
            chmod u+rw "$out/$as/net/$file"
        fi
    done
}

mkdir -p "$out"
files="netstat snmp snmp6 sockstat sockstat6 dev"
pod=7d5f0c1e_2a4b_4c6d_8e0f_1a2b3c4d5e6f
container=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
# shellcheck disable=SC2086 # a list of words
{
    capture "${keep[2]}" 1 init 4026531840 "0::/init.scope" $files softnet_stat
    capture "${keep[0]}" 200 web 4026532201 \
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod$pod.slice/cri-containerd-$container.scope" $files
    capture "${keep[1]}" 300 sleep 4026532301 "0::/user.slice" $files
}
echo "0.00 0.00 0.00 1/3 300" >"$out/loadavg"
