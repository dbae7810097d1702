#!/bin/sh
# Compiles the kernels to kernels.fatbin: machine code for Ampere, Ada and
# Hopper, and PTX for what comes after, which the driver compiles. go generate
# runs it. It needs nvcc 13.0 (of the CUDA toolkit, or of the PyPI package
# nvidia-cuda-nvcc with nvidia-cuda-runtime, nvidia-cuda-crt, nvidia-nvvm and
# nvidia-cuda-cccl), but no GPU. NVCC names it.
set -eu
cd "$(dirname "$0")"
"${NVCC:-nvcc}" --version | grep -q 'release 13.0' || { echo "generate.sh: nvcc 13.0 is needed: newer ones make PTX that drivers of its time cannot read" >&2; exit 1; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cat kernels/elementwise.cu kernels/matmul.cu kernels/attention.cu kernels/sample.cu >"$out/all.cu"
"${NVCC:-nvcc}" -I kernels -std=c++17 -O3 --threads 2 -fatbin -Xfatbin -compress-all -o kernels.fatbin \
  -gencode arch=compute_80,code=sm_80 -gencode arch=compute_86,code=sm_86 -gencode arch=compute_89,code=sm_89 \
  -gencode arch=compute_90,code=sm_90 -gencode arch=compute_80,code=compute_80 "$@" "$out/all.cu"
cat generate.sh kernels/*.cu kernels/*.cuh kernels.fatbin | sha256sum | cut -d' ' -f1 >kernels.sum
