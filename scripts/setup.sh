#!/bin/sh
# Make .venv from the hash-pinned lock, once; say what is being done; be quick the second time.
set -eu
cd "$(dirname "$0")/.."
stamp=.venv/.ready
want=$(cat requirements.lock pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$1"; say "cure: $2"; exit 2; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null || die "no $python on PATH" "apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$("$python" --version) is too old" "install Python 3.11 or newer, or set PYTHON=/path/to/python3.11"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        die "Python's venv module is missing" "sudo apt-get install python3-venv"
    say "installing python3-venv"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >&2 ||
        die "python3-venv could not be installed" "check the network, then: apt-get install python3-venv"
fi

[ -x .venv/bin/python ] || { say "creating .venv with $("$python" --version)"; "$python" -m venv .venv; }
say "installing pinned packages from requirements.lock (about 400 MB on the first run)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock ||
    die "the pinned packages could not be installed" "check the network or your pip index settings, then run the same command again"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ||
    die "tidegate itself could not be installed" "read the lines above"
printf '%s' "$want" >"$stamp"
say "ready"
