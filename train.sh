#!/usr/bin/env bash
# Fine-tune under DeepSpeed, then benchmark. Examples:
#   ./train.sh                                          the embedded default, on any machine
#   ./train.sh configs/llama3.1-8b-a100.yaml            a named configuration
#   ./train.sh configs/llama3.1-8b-a100.yaml --gpus 2,3 --num_epochs 1
#   ./train.sh configs/llama3.1-8b-a100.yaml --dry_run  resolve, check and print; start nothing
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=python3
if [[ -z ${VIRTUAL_ENV:-} && -x $here/.venv/bin/python ]]; then
  python=$here/.venv/bin/python
fi
if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("deepspeed") is None)'; then
  echo "deepspeed is not installed for $python. Run \`pip install -r requirements.txt\`, or \`make demo\`." >&2
  exit 2
fi
exec "$python" "$here/launch.py" "$@"
