#!/usr/bin/env bash
# On a bare GPU machine, in the repository's root with what prepare.sh made: install it apart, and run day.py.
# Results are under $OUT; it ends itself after $LIMIT_S seconds.
set -uo pipefail
began=$(date +%s)
export OUT=${OUT:-/tmp/gpu_day} site=/tmp/gpu_day_site
mkdir -p "$OUT"
exec > >(tee "$OUT/log.txt") 2>&1
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .gpu_wheels/*.whl || exit
export PYTHONPATH=$site PATH=$site/bin:$PATH HF_HUB_OFFLINE=1 PYTHONPYCACHEPREFIX=/tmp/gpu_day_pyc
# What is missing or too old shows here, not in eight minutes.
python3 -c 'import datasets, trl, deepspeed, bitsandbytes, liger_kernel, train_lora, torch; assert torch.cuda.is_available()' || exit
./train.sh --doctor > "$OUT/doctor.txt" 2>&1 &
export LIMIT_S=$(( ${LIMIT_S:-555} - $(date +%s) + began ))
python3 bench/gpu/day.py
