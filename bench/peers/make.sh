#!/bin/sh
# Make the environments of the peers that the gateway benchmark measures against, once; pinned; say what is done.
# make.sh tools: only what measures (nginx, wrk), no peer.
set -eu
cd "$(dirname "$0")"
env=env
mkdir -p "$env"

say() { printf 'bench-peers: %s\n' "$*" >&2; }
die() { say "$1"; say "cure: $2"; exit 2; }

# debian PROGRAM PACKAGE: a tool of the distribution, installed when this is root
debian() {
    PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null && return
    { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || die "$1 is missing" "sudo apt-get install $2"
    say "installing $2"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } >&2 ||
        die "$2 could not be installed" "check the network, then: apt-get install $2"
}

# fresh NAME FILE...: true when environment NAME was made from exactly these files
stamp() { name=$1; shift; cat "$@" | sha256sum | cut -d' ' -f1 >"$env/.$name.want"; }
fresh() { [ -f "$env/$1/.ready" ] && cmp -s "$env/$1/.ready" "$env/.$1.want"; }
seal() { mv "$env/.$1.want" "$env/$1/.ready"; }

# python_peer NAME SIZE: a virtual environment from requirements-NAME.txt, every file held to its hash
python_peer() {
    stamp "$1" "requirements-$1.txt"
    fresh "$1" && return
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$("$python" --version) is too old" "set PYTHON=/path/to/python3.11 or newer"
    say "making env/$1 ($2)"
    rm -rf "${env:?}/$1"
    "$python" -m venv "$env/$1" || die "no virtual environment could be made" "apt-get install python3-venv"
    "$env/$1/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
        -r "requirements-$1.txt" ||
        die "$1 could not be installed" "check the network or your pip index settings, then run the same command again"
    seal "$1"
}

node_peer() {
    stamp "$1" "$1/package.json" "$1/package-lock.json"
    fresh "$1" && return
    say "making env/$1 ($2)"
    rm -rf "${env:?}/$1"
    mkdir -p "$env/$1"
    cp "$1/package.json" "$1/package-lock.json" "$env/$1/"
    (cd "$env/$1" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2 ||
        die "$1 could not be installed" "check the network or your npm settings, then run the same command again"
    seal "$1"
}

debian nginx nginx-light
debian wrk wrk
[ "${1:-}" = tools ] && exit 0
debian node nodejs
debian npm npm
python_peer tensorzero "150 MB"
node_peer portkey "25 MB"
# Never litellm 1.82.7 or 1.82.8: those two carried a credential stealer.
python_peer litellm "750 MB"
say "ready: nginx, wrk, TensorZero, Portkey, LiteLLM"
