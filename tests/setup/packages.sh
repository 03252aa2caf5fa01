#!/bin/sh
# Installs what `make run`, `make test` or `make test-kernels` needs and this machine lacks, through apt; does nothing
# where all is there.
# Usage: packages.sh run|test|kernels
set -eu

need=${1:-run}
missing=

# lacks PROGRAM PACKAGE: notes the package when the program cannot be found.
lacks() {
    command -v "$1" >/dev/null 2>&1 || case " $missing " in
    *" $2 "*) ;;
    *) missing="$missing $2" ;;
    esac
}

# Debian keeps some of these out of a plain user's PATH.
PATH=$PATH:/usr/sbin:/sbin

lacks cc gcc
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
# The kernel side of the eBPF probes.
lacks clang clang
lacks llvm-strip llvm
[ -e /usr/include/bpf/bpf_helpers.h ] || missing="$missing libbpf-dev"
if [ "$need" = test ]; then
    lacks git git
    lacks ip iproute2
    lacks nsenter util-linux
    lacks nft nftables
    lacks conntrack conntrack
    lacks iperf3 iperf3
    # The kernel side is compiled for arm64 too.
    [ -e /usr/aarch64-linux-gnu/include/asm/ptrace.h ] || missing="$missing linux-libc-dev-arm64-cross"
    lacks openssl openssl
    lacks curl curl
    lacks jq jq
    lacks dpkg-shlibdeps dpkg-dev
    lacks systemd-analyze systemd
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    lacks prometheus prometheus
    lacks promtool prometheus
    lacks prometheus-alertmanager prometheus-alertmanager
    lacks prometheus-node-exporter prometheus-node-exporter
    # They run Grafana's parser of LogQL.
    lacks node nodejs
    lacks npm npm
    # Real pods: the suite `pods`.
    lacks containerd containerd
    lacks runc runc
    [ -x /usr/lib/cni/bridge ] || missing="$missing containernetworking-plugins"
fi
if [ "$need" = kernels ]; then
    lacks qemu-system-x86_64 qemu-system-x86
    lacks busybox busybox-static
    lacks cpio cpio
    lacks depmod kmod
    lacks xz xz-utils
    lacks jq jq
    # These go into the VMs.
    lacks bash bash
    lacks ip iproute2
    lacks nsenter util-linux
    lacks nft nftables
    lacks conntrack conntrack
    lacks ethtool ethtool
    lacks ipvsadm ipvsadm
    lacks iperf3 iperf3
    lacks losetup mount
fi

# /usr/sbin/policy-rc.d with exit 101 keeps apt from starting the services that packages bring. One that is there
# already belongs to somebody else and stays.
policy=/usr/sbin/policy-rc.d
without_services() {
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f $policy' EXIT
        trap 'exit 1' INT TERM HUP
    fi
    "$@"
}

if [ -n "$missing" ]; then
    missing=${missing# }
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "netsonde needs these Debian packages, or what your system calls them: $missing" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "netsonde needs packages that are not installed: $missing" >&2
        echo "As root, type:  apt-get install --no-install-recommends $missing" >&2
        exit 1
    fi
    echo "installing: $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    without_services apt-get install -q -y --no-install-recommends $missing </dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "netsonde is built with cargo, which is not here. https://rustup.rs tells how to get it; in short:" >&2
    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    echo "Then open a new shell and try again." >&2
    exit 1
fi
if [ "$need" = test ] && ! { command -v rustfmt && command -v cargo-clippy; } >/dev/null 2>&1; then
    echo "The checks need rustfmt and clippy. Type:  rustup component add rustfmt clippy" >&2
    exit 1
fi
