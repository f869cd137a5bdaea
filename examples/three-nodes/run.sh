#!/bin/sh
# Starts three nodes on this machine and waits until they serve. Ctrl-C stops them. Data: ./data below this folder.
#
#   examples/three-nodes/run.sh [path of the wukongim binary]
#
# To see a node die: `kill -9` one of the printed process ids, and go on sending through the other two.
set -eu
binary=$(command -v "${1:-wukongim}") || { echo "build first: cargo build --release, then $0 target/release/wukongim" >&2; exit 1; }
binary=$(realpath "$binary")
cd "$(dirname "$0")"
mkdir -p data
pids=
trap 'kill $pids 2>/dev/null; wait' INT TERM EXIT
for n in 1 2 3; do
    "$binary" --config "node$n.yaml" >"data/node$n.log" 2>&1 &
    pids="$pids $!"
    echo "node 100$n   pid $!   clients 127.0.0.1:51${n}0   HTTP http://127.0.0.1:50${n}1   log data/node$n.log"
done
until curl -fsS http://127.0.0.1:5011/readyz http://127.0.0.1:5021/readyz http://127.0.0.1:5031/readyz >/dev/null 2>&1; do
    sleep 0.2
done
echo "ready. Try, in two terminals:"
echo "  $binary chat --uid alice --to bob --server 127.0.0.1:5110 --api 127.0.0.1:5011"
echo "  $binary chat --uid bob --to alice --server 127.0.0.1:5120 --api 127.0.0.1:5021"
wait
