#!/usr/bin/env bash
# Boots one kernel in a VM, shows its console, and unpacks what it sends, a log and a status of each suite, over
# what is there.
# Usage: boot.sh TREE INITRAMFS RESULTS SECONDS
#
# The VM has no disk, and of networks only a virtio card that is connected to nothing. It ends with this script, also
# when that is killed, and after SECONDS.
set -euo pipefail

tree=$1 initramfs=$2 results=$3 limit=$4
release=$(basename "$tree")
kernel=$tree/boot/vmlinuz-$release
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# vm SECONDS ARGUMENTS...: each of the two is killed by the kernel when what started it ends. Only for the start of a
# pipe, where it is a process of its own already.
vm() {
    local seconds=$1
    shift
    exec setpriv --pdeathsig KILL -- timeout --foreground --kill-after 5 "$seconds" \
        setpriv --pdeathsig KILL -- qemu-system-x86_64 -machine q35 -cpu max -m 1024 -smp 2 \
        -netdev hubport,id=nowhere,hubid=0 -device virtio-net-pci,netdev=nowhere,romfile= \
        -display none -no-reboot -nodefaults -kernel "$kernel" "$@" </dev/null
}

# That there is a /dev/kvm says little: a guest must get as far as its first words, after which it finds no root.
if [ -w /dev/kvm ] && vm 20 -accel kvm -serial stdio -append "console=ttyS0 panic=-1" 2>/dev/null |
    grep 'Linux version' >/dev/null; then
    accel=kvm
    slow=1
else
    accel=tcg,thread=multi,tb-size=256
    slow=10
fi
echo "== $release: $accel"
vm "$limit" -accel "$accel" -initrd "$initramfs" -serial stdio -serial "file:$scratch/results.tar.gz" \
    -append "console=ttyS0 quiet panic=-1 slow=$slow" | sed -u 's/\r$//' || echo "the VM ended with $?" >&2

mkdir -p "$results"
tar -xzf "$scratch/results.tar.gz" -C "$results" || { echo "$release: the VM sent no results" >&2; exit 1; }
