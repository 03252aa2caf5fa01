#!/usr/bin/env bash
# Fetches one of Debian's kernels and unpacks it into a folder; nothing is installed. Prints the kernel's release.
# Usage: fetch.sh PACKAGE FOLDER   (PACKAGE is a meta package such as linux-image-cloud-amd64)
#
# The meta package names the image of today: those of yesterday vanish from the archive. FOLDER/RELEASE is what was
# unpacked, with /boot and /lib/modules in it; it is kept until the meta package names another one.
set -euo pipefail

meta=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)

# wanted: "IMAGE VERSION", as the meta package names them now; nothing where apt does not know it.
wanted() {
    apt-cache show --no-all-versions "$meta" 2>/dev/null |
        sed -n 's/^Depends: \(linux-image-[0-9][^ ]*\) (= \([^)]*\)).*/\1 \2/p' || true
}

# refresh: apt-get update, which only root may.
refresh() {
    echo "asking apt for new lists" >&2
    [ "$(id -u)" -eq 0 ] || { echo "$meta: apt's lists are missing or old, and only root may update them" >&2; return 1; }
    apt-get update -q >&2
}

if [ -z "$(wanted)" ]; then
    refresh
fi
read -r image version < <(wanted) || { echo "apt knows no $meta" >&2; exit 1; }
release=${image#linux-image-}
tree=$folder/$release

if [ "$(cat "$tree/version" 2>/dev/null)" != "$version" ]; then
    echo "fetching $image $version" >&2
    scratch=$(mktemp -d "$folder/.fetch-XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    download() { (cd "$scratch" && apt-get download -q -o APT::Sandbox::User=root "$image=$version" >&2); }
    if ! download; then
        # The lists are older than the archive: what they name may be gone by now.
        refresh
        read -r image version < <(wanted)
        release=${image#linux-image-}
        tree=$folder/$release
        download
    fi
    mkdir "$scratch/tree"
    dpkg-deb -x "$scratch"/*.deb "$scratch/tree"
    depmod -b "$scratch/tree" "$release"
    echo "$meta" >"$scratch/tree/meta"
    echo "$version" >"$scratch/tree/version"
    rm -rf "$tree"
    mv "$scratch/tree" "$tree"
fi
# What the meta package named before.
for old in "$folder"/*/; do
    if [ "${old%/}" != "$tree" ] && [ "$(cat "$old/meta" 2>/dev/null)" = "$meta" ]; then
        rm -rf "$old"
    fi
done
echo "$release"
