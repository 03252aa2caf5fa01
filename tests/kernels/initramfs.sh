#!/usr/bin/env bash
# Makes what a VM boots into: busybox, the programs that the lab uses, modules of its kernel, netsonde and the suites.
# Usage: initramfs.sh TREE NETSONDE CONFIG WORKER OUT SUITE...
#
# TREE is what fetch.sh unpacked. SUITE is the executable of a suite. Everything is copied from this machine with the
# libraries that it is linked with; copies of what was built lose their debug information.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

tree=$1 netsonde=$2 config=$3 worker=$4 out=$5
shift 5
release=$(basename "$tree")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
export PATH=$PATH:/usr/sbin:/sbin

# What the suites run, instead of the applets of busybox: those know less, and its env and sh prefer its own programs.
# bash is there for status.sh too.
programs="ip tc ss nsenter setpriv nft conntrack ipvsadm ethtool iperf3 losetup dd chrt taskset env cat sleep sh bash"
# What the suites need of the kernel, and what the README of a probe asks for.
modules="veth dummy bridge macvlan virtio_pci virtio_net sch_netem sch_tbf sch_ingress cls_bpf
    nf_tables nf_conntrack nf_conntrack_netlink nft_ct nft_limit nft_reject_inet nft_chain_nat nft_masq ip_tables iptable_filter
    ip_vs ip_vs_rr inet_diag tcp_diag udp_diag loop"
# What newer kernels have made a part of nf_tables.
older="nft_objref"

# with_libraries PROGRAM: copies the libraries of one program, and the loader, to where it looks for them.
with_libraries() {
    local library
    # A static program has none, and ldd says so by its exit.
    { ldd "$1" 2>/dev/null || true; } | awk '{ for (i = 1; i <= NF; i++) if ($i ~ "^/") print $i }' |
        while read -r library; do
            [ ! -e "$root$library" ] || continue
            mkdir -p "$root$(dirname "$library")"
            cp -L "$library" "$root$library"
        done
}

mkdir -p "$root"/{bin,usr/bin,proc,sys,dev,run,tmp,etc,modules,lab/suites}
cp -L "$(command -v busybox)" "$root/bin/busybox"
with_libraries "$root/bin/busybox"
for applet in $(busybox --list); do
    case " $programs busybox " in
    *" $applet "*) ;;
    *) ln -s busybox "$root/bin/$applet" ;;
    esac
done
for program in $programs; do
    path=$(command -v "$program") || { echo "this machine has no $program to take along" >&2; exit 1; }
    cp -L "$path" "$root/usr/bin/$program"
    with_libraries "$path"
done

# built FILE PLACE: a program of this workspace.
built() {
    strip --strip-debug -o "$root/$2" "$1"
    with_libraries "$1"
}
built "$netsonde" lab/netsonde
built "$worker" lab/worker
for suite in "$@"; do
    name=$(basename "$suite")
    built "$suite" "lab/suites/${name%-*}"
done
# Suites know the worker by the path that it was built at.
mkdir -p "$root$(dirname "$worker")"
ln -s /lab/worker "$root$worker"
cp "$config" "$root/lab/every-probe.yaml"
cp "$here/status.sh" "$root/lab/status.sh"
cp "$here/init.sh" "$root/init"
chmod 755 "$root/init" "$root/lab/status.sh"

# The modules in the order in which they load; the kernel has the rest built in.
depends() { modprobe --dirname "$tree" --set-version "$release" --show-depends "$1"; }
{
    for module in $modules; do
        depends "$module" || { echo "$release has no module $module" >&2; exit 1; }
    done
    for module in $older; do
        depends "$module" 2>/dev/null || true
    done
} | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    name=$(basename "$file")
    case $name in
    *.ko.xz) xz --decompress --stdout "$file" >"$root/modules/${name%.xz}" ;;
    *.ko) cp "$file" "$root/modules/$name" ;;
    *) echo "$file: packed in a way that is not known here" >&2; exit 1 ;;
    esac
    echo "/modules/${name%.xz}" >>"$root/modules/order"
done

# Not compressed: to unpack it would take an emulated CPU longer than it takes to load.
(cd "$root" && find . | cpio --quiet --create --format newc --owner 0:0) >"$out.new"
mv "$out.new" "$out"
