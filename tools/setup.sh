#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Make .venv with everything pinned. Does nothing when requirements and Python are the ones it was made from.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
  local candidate
  for candidate in "${LLMOPS_EKS_PYTHON:-}" python3.13 python3.12 python3.14 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  echo "setup: no Python >= 3.12 with venv found (tried LLMOPS_EKS_PYTHON, python3.13, python3.12, python3 and pyenv)." >&2
  echo "       ansible-core >= 2.20 needs it. Install one (e.g. 'apt install python3.13-venv', 'pyenv install 3.13') or set LLMOPS_EKS_PYTHON." >&2
  exit 1
}

stamp=.venv/made-from
wanted=$(grep -hv '^ *#' requirements.txt requirements-dev.txt tools/setup.sh | cksum)
if [ -x .venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then exit 0; fi
python=$(find_python)
echo "setup: .venv with $("$python" --version) (about 2 minutes the first time)"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
echo "$wanted" >"$stamp"
