#!/usr/bin/env bash
# Makes the image that the Dockerfile describes, without Docker: an archive for `docker load`, `podman load` and
# `ctr image import`. The same program gives the same bytes.
# Usage: build.sh [--program FILE] [--output FILE] [--arch amd64|arm64] [--tag NAME:TAG]
#   --program  the program; without it, a static release build is made (and takes minutes)
#   --output   target/image/netsonde-ARCH.tar unless set
# SOURCE_DATE_EPOCH is the time of all files, the last commit's unless set.
set -euo pipefail
cd "$(dirname "$0")/../.."
dockerfile=deploy/image/Dockerfile

arch=$(dpkg --print-architecture 2>/dev/null || uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
program="" output=""
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
tag=ghcr.io/netsonde/netsonde:$version
while [ $# -gt 0 ]; do
    case $1 in
    --program) program=$2 ;;
    --output) output=$2 ;;
    --arch) arch=$2 ;;
    --tag) tag=$2 ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
for tool in jq tar sha256sum; do
    command -v $tool >/dev/null || { echo "$tool is missing" >&2; exit 1; }
done
output=${output:-target/image/netsonde-$arch.tar}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

if [ -z "$program" ]; then
    case $arch in
    amd64) target=x86_64-unknown-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu ;;
    *) echo "no image is made for $arch" >&2; exit 2 ;;
    esac
    # --target keeps the flag from the programs that run while it is built.
    RUSTFLAGS=-Ctarget-feature=+crt-static cargo build --release --locked -p netsonde --target "$target"
    program=target/$target/release/netsonde
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
deploy/image/rootfs.sh "$program" "$scratch/rootfs"

# pack FOLDER FILE NAME...: an archive in which nothing depends on when and where it is made.
pack() {
    tar --create --file "$2" --directory "$1" --format=posix --sort=name --mtime="@$epoch" --owner=0 --group=0 \
        --numeric-owner --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime "${@:3}"
}
mkdir "$scratch/image"
pack "$scratch/rootfs" "$scratch/image/layer.tar" .
layer=$(sha256sum "$scratch/image/layer.tar" | cut -d ' ' -f 1)

# The last stage of the Dockerfile, with the values of its arguments.
stage=$(awk '/^FROM /{ text = "" } { text = text "\n" $0 } END { print text }' "$dockerfile" |
    sed -e "s/\$VERSION/$version/" -e "s/\$REVISION/$revision/")
# all WORD: what follows the instruction, a line each.
all() { sed -n "s/^$1 //p" <<<"$stage"; }
unknown=$(sed -n 's/^\([A-Z]\+\) .*/\1/p' <<<"$stage" | grep -Evx 'FROM|ARG|LABEL|COPY|ENV|EXPOSE|ENTRYPOINT|CMD' || true)
[ -z "$unknown" ] || { echo "$dockerfile has an instruction that build.sh does not know: $unknown" >&2; exit 1; }
jq --null-input --compact-output --sort-keys \
    --arg arch "$arch" --arg layer "sha256:$layer" --arg created "$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" \
    --arg labels "$(all LABEL)" --arg env "$(all ENV)" --arg ports "$(all EXPOSE)" \
    --argjson entrypoint "$(all ENTRYPOINT)" --argjson cmd "$(all CMD)" '
    def pairs: split("\n") | map(capture("^(?<key>[^=]+)=\"(?<value>.*)\"$"));
    { architecture: $arch, os: "linux", created: $created,
      config: {
        Entrypoint: $entrypoint, Cmd: $cmd, WorkingDir: "/",
        Env: ($env | pairs | map("\(.key)=\(.value)")),
        ExposedPorts: ($ports | split("\n") | map({key: "\(.)/tcp", value: {}}) | from_entries),
        Labels: ($labels | pairs | from_entries) },
      rootfs: { type: "layers", diff_ids: [$layer] },
      history: [{ created: $created, created_by: "deploy/image/build.sh" }] }' >"$scratch/image/config.json"
config=$(sha256sum "$scratch/image/config.json" | cut -d ' ' -f 1).json
mv "$scratch/image/config.json" "$scratch/image/$config"
jq --null-input --compact-output --arg config "$config" --arg tag "$tag" \
    '[{Config: $config, RepoTags: [$tag], Layers: ["layer.tar"]}]' >"$scratch/image/manifest.json"

mkdir -p "$(dirname "$output")"
pack "$scratch/image" "$scratch/out.tar" "$config" layer.tar manifest.json
mv "$scratch/out.tar" "$output"
echo "$output: $tag, $arch, $(stat -c %s "$output") bytes"
