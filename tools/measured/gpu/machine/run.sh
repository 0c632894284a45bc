#!/usr/bin/env bash
# What only a GPU can show, into $OUT: OUT=folder bash .setup/gpu/run.sh [--smoke]; MINUTES bounds it, PYTHON names the interpreter.
exec "${PYTHON:-python3}" "$(dirname "$0")/run.py" --out "${OUT:?names the folder of the results}" --minutes "${MINUTES:-8}" "$@"
