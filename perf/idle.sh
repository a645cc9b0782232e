#!/usr/bin/env bash
# Memory of an idle registered WSS client: the server's PSS (user space, one shard, one CPU) with 0, 2,500 and 10,000
# clients, and what each adds between the last two, as one JSON object:
#
#   perf/idle.sh [sipring|floor|kamailio|opensips]
#
# Needs no root; the hard limit of descriptors must allow 10,100 a process.
set -eu -o pipefail
cd "$(dirname "$0")/.."

peer="${1:-sipring}"
target="${CARGO_TARGET_DIR:-target}"
host=127.0.0.1
port=23440
ulimit -n "$(ulimit -Hn)"

[ -x "${SIPRING:-$target/release/sipring}" ] || cargo build --release
cargo build --quiet --release --manifest-path perf/Cargo.toml --target-dir "$target"

coproc server { exec perf/peers/start "$peer" "$host" "$port"; }
trap 'kill "$server_PID" 2>/dev/null || true; wait' EXIT
read -r -a ready <&"${server[0]}"
pids=()
for pid in "${ready[@]:1}"; do
    pids+=(--server-pid "$pid")
done
taskset -c "$(($(nproc) > 1 ? 1 : 0))" "$target/release/sipring-perf" idle --wss "$host:$((port + 3))" \
    --steps 2500,10000 "${pids[@]}" --json
