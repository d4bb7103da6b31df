#!/usr/bin/env bash
# Proves that lorafit trains on this machine's GPU; see check_gpu.py. PYTHON names another Python.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "$0")/check_gpu.py" "$@"
