#!/bin/sh
# Makes the default model from the teacher, all of it, in order.
#
#   ./make.sh SmolLM2-135M-Instruct.Q4_1.gguf work/
#
# Needs a CUDA GPU of 80 GB (smaller: --batch of sample.py), Python with torch
# (2.9 or newer, with triton), numpy and tokenizers; the last step needs
# llama-cpp-python. On an H100 it takes a quarter of an hour.
set -eu
teacher=$1 work=$2
here=$(dirname "$0")
default=$here/../default
mkdir -p "$work"
python "$here/sample.py" --teacher "$teacher" --out "$work/corpus.jsonl" --seconds 270
python "$here/prepare.py" --corpus "$work/corpus.jsonl" --out "$work/data"
python "$here/train.py" --data "$work/data" --out "$work/model.npz" --seconds 320
python "$here/export.py" --model "$work/model.npz" --tokenizer "$work/data/tokenizer.json" --out "$default/default.gguf"
cp "$work/data/eval.txt" "$default/eval.txt"
cd "$here"
python golden.py --model ../default/default.gguf --eval ../default/eval.txt --out ../default/golden.json
