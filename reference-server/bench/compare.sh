#!/usr/bin/env bash
# Compares the engine with llama.cpp on one GGUF file, two threads each, in turns
# within one run, so that both see the same machine; the best of all rounds
# counts. Needs Python with llama-cpp-python.
#
#   reference-server/bench/compare.sh MODEL.gguf [ROUNDS]
set -euo pipefail
model=$(realpath "$1") rounds=${2:-3}
cd "$(dirname "$0")/../.."
test=$(mktemp)
trap 'rm -f "$test"' EXIT
go test -c -o "$test" ./reference-server/engine
for ((i = 0; i < rounds; i++)); do
  (cd reference-server/engine && LAUNCHGATE_BENCH_MODEL="$model" "$test" -test.run '^$' -test.bench Speed -test.benchtime 1x) |
    awk '/decode1/ { for (i = 4; i < NF; i++) if ($(i+1) ~ /decode|prefill/) print "launchgate", $(i+1), $i }'
  "${PYTHON:-python3}" reference-server/bench/llamacpp.py "$model" 2 2>/dev/null |
    awk '{ for (i = 1; i < NF; i += 2) print "llama.cpp", $i, $(i+1) }'
done | awk '
  { if ($3 > best[$1 " " $2]) best[$1 " " $2] = $3; names[$2] = 1 }
  END { for (n in names) printf "%-11s launchgate %8.1f  llama.cpp %8.1f tokens/s  ratio %.2f\n", n, best["launchgate " n], best["llama.cpp " n], best["launchgate " n] / best["llama.cpp " n] }'
