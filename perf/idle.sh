#!/usr/bin/env bash
# Memory of an idle registered WSS client: the proxy's PSS (user space, one shard, one CPU) with 0, 2,500 and 10,000
# clients, and what each client adds between the last two. Prints one JSON object a line. Needs no root; the hard
# limit of descriptors must allow 10,100 a process.
set -eu -o pipefail
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}"
binary="${SIPRING_BINARY:-$target/release/sipring}"
load="$target/release/sipring-perf"
port=23443
admin=127.0.0.1:23990
steps=(2500 10000) # clients in all at each reading
ulimit -n "$(ulimit -Hn)"

work="$(mktemp -d)"
children=()

finish() {
    kill "${children[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT

build() {
    [ -x "$binary" ] || cargo build --release
    cargo build --quiet --release --manifest-path perf/Cargo.toml --target-dir "$target"
}

start_proxy() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
        -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
    cat >"$work/sipring.toml" <<TOML
[node]
name = "idle"
domains = ["example.com"]
shards = 1
secret_file = "secret"

[[listen]]
transport = "wss"
address = "127.0.0.1:$port"
certificate = "local"

[[certificate]]
name = "local"
cert = "cert.pem"
key = "key.pem"

[[route]]
domain = "example.com"
to = "location"

[log]
level = "warn"

[admin]
address = "$admin"
TOML
    taskset -c 0 "$binary" --config "$work/sipring.toml" >"$work/proxy.log" 2>&1 &
    proxy=$!
    children+=("$proxy")
    for _ in $(seq 200); do
        curl -fs --noproxy '*' -o "$work/ready" "http://$admin/readyz" && return
        kill -0 "$proxy" 2>/dev/null || break
        sleep 0.05
    done
    cat "$work/proxy.log" >&2
    return 1
}

# Adds clients: `add FIRST COUNT`; returns when all are registered.
add() {
    local output="$work/load-$1"
    : >"$output"
    taskset -c "$(($(nproc) > 1 ? 1 : 0))" "$load" idle --server "127.0.0.1:$port" --first "$1" --connections "$2" \
        --hold 300 >"$output" &
    local pid=$!
    children+=("$pid")
    until grep -q registered "$output"; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
    cat "$output" >&2
}

pss_now() {
    awk '/^Pss:/ { print $2 * 1024 }' "/proc/$proxy/smaps_rollup"
}

# Sets `pss` once it has stopped moving: two readings a second apart within 16 KiB, or 30 seconds.
read_pss() {
    local last
    pss="$(pss_now)"
    for _ in $(seq 30); do
        last="$pss"
        sleep 1
        pss="$(pss_now)"
        [ $((pss > last ? pss - last : last - pss)) -gt 16384 ] || break
    done
    echo "{\"clients\":$1,\"pss_bytes\":$pss}"
}

build
start_proxy
read_pss 0
empty="$pss"
before=0
lower=0
for clients in "${steps[@]}"; do
    add "$before" $((clients - before))
    lower="$pss"
    read_pss "$clients"
    span=$((clients - before))
    before="$clients"
done
echo "{\"marginal_bytes_per_client\":$(((pss - lower) / span)),\"mean_bytes_per_client\":$(((pss - empty) / before))}"
