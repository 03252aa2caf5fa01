#!/usr/bin/env bash
# Compiles the kernel side of every eBPF probe as it is compiled on arm64, with Debian's headers for it. That it loads
# there, it does not show: that takes an arm64 kernel. Usage: arm64.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

headers=/usr/aarch64-linux-gnu/include
[ -e $headers/asm/ptrace.h ] || { echo "no headers of arm64 (Debian: linux-libc-dev-arm64-cross)" >&2; exit 1; }
object=$(mktemp)
trap 'rm -f "$object"' EXIT
compiled=0
for source in probes-ebpf/src/*/kernel.bpf.c; do
    # As in probes-ebpf/build.rs.
    clang -O2 -g -Wall -Werror -target bpf -mcpu=v3 -D__TARGET_ARCH_arm64 -I probes-ebpf/include -I $headers \
        -c "$source" -o "$object"
    compiled=$((compiled + 1))
done
[ "$compiled" -ge 10 ] || { echo "only $compiled probes have a kernel side" >&2; exit 1; }
echo "$compiled programs compile for arm64"
