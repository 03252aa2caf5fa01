#!/usr/bin/env bash
# Lays the image's files: the program, what it is linked with where it is not static, certificates, names of users, a
# configuration, the licence. The Dockerfile and build.sh both call it.
# Usage: rootfs.sh PROGRAM FOLDER
set -euo pipefail

program=$1
root=$2
repository=$(cd "$(dirname "$0")/../.." && pwd)
[ -x "$program" ] || { echo "$program is no program" >&2; exit 1; }
[ ! -e "$root" ] || { echo "$root is there already" >&2; exit 1; }

install -D -m 755 "$program" "$root/usr/bin/netsonde"
# A program that is linked dynamically brings its libraries, each at the path where it looks for it. For a static one
# ldd fails or names none.
libraries=$(ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true)
for library in $libraries; do
    install -D -m 755 "$library" "$root$library"
done

bundle=/etc/ssl/certs/ca-certificates.crt
[ -e $bundle ] || { echo "$bundle is missing (Debian: ca-certificates); sinks need it for HTTPS" >&2; exit 1; }
install -D -m 644 "$bundle" "$root$bundle"
mkdir -p "$root/etc/netsonde" "$root/run" "$root/proc" "$root/sys" "$root/dev" "$root/var/lib/netsonde"
mkdir -m 1777 "$root/tmp"
printf 'root:x:0:0:root:/:/usr/sbin/nologin\nnetsonde:x:65532:65532:netsonde:/:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnetsonde:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
install -m 644 "$repository/config/netsonde.yaml" "$root/etc/netsonde/netsonde.yaml"
install -D -m 644 "$repository/LICENSE" "$root/usr/share/licenses/netsonde/LICENSE"
