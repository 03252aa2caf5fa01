#!/usr/bin/env bash
# Makes the Debian package: the program, the systemd unit, and the configuration as a conffile.
# Usage: build.sh [--program FILE] [--output FOLDER]
#   --program  the program; without it, a release build is made
#   --output   target/debian unless set
# SOURCE_DATE_EPOCH is the time of all files, the last commit's unless set.
set -euo pipefail
cd "$(dirname "$0")/../.."

program="" output=target/debian
while [ $# -gt 0 ]; do
    case $1 in
    --program) program=$2 ;;
    --output) output=$2 ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
for tool in dpkg-deb dpkg-shlibdeps; do
    command -v $tool >/dev/null || { echo "$tool is missing (Debian: dpkg, dpkg-dev)" >&2; exit 1; }
done
if [ -z "$program" ]; then
    cargo build --release --locked -p netsonde
    program=target/release/netsonde
fi
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
arch=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/netsonde
install -D -m 755 "$program" "$root/usr/bin/netsonde"
install -D -m 644 config/netsonde.yaml "$root/etc/netsonde/netsonde.yaml"
install -D -m 644 deploy/systemd/netsonde.service "$root/lib/systemd/system/netsonde.service"
install -D -m 644 deploy/debian/copyright "$root/usr/share/doc/netsonde/copyright"
install -D -m 644 CHANGELOG.md "$root/usr/share/doc/netsonde/changelog"
gzip -9n "$root/usr/share/doc/netsonde/changelog"
install -D -m 644 docs/guides/systemd.md "$root/usr/share/doc/netsonde/systemd.md"

# dpkg-shlibdeps names the packages of the libraries, in the versions whose symbols the program uses. A static program
# has none.
mkdir "$scratch/debian"
printf 'Source: netsonde\n\nPackage: netsonde\nArchitecture: any\n' >"$scratch/debian/control"
libraries=
if ldd "$program" >/dev/null 2>&1; then
    libraries=$(cd "$scratch" && dpkg-shlibdeps -O netsonde/usr/bin/netsonde | sed -n 's/^shlibs:Depends=//p')
fi

mkdir "$root/DEBIAN"
{
    sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$(du -sk --apparent-size "$root" | cut -f 1)/" \
        deploy/debian/control
    [ -z "$libraries" ] || echo "Depends: $libraries"
} >"$root/DEBIAN/control"
echo /etc/netsonde/netsonde.yaml >"$root/DEBIAN/conffiles"
install -m 755 deploy/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$output"
dpkg-deb --root-owner-group --build "$root" "$output/netsonde_${version}_$arch.deb"
