#!/usr/bin/env bash
# Makes an environment of its own for each peer that the benchmarks measure against. Does nothing where it is up to date.
#
#   bench/peers.sh [FOLDER]      below FOLDER (default: .peers/ at the root of the repository)
#   PYTHON=python3.12 bench/peers.sh    chooses the interpreter (3.11 to 3.13)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/.peers}
python=${PYTHON:-python3.11}

if [[ "${1:-}" == --help || "${1:-}" == -h ]]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0"
  exit 0
fi

make_one() { # name, then the requirements with their pins
  local venv=$folder/$1 wanted
  shift
  wanted="$* ($python)"
  if [[ -x $venv/bin/python && "$(cat "$venv/installed" 2>/dev/null)" == "$wanted" ]]; then
    echo "peers: $venv is up to date"
    return
  fi
  echo "peers: $venv: $wanted"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
  # PyTorch's default build on Linux brings gigabytes of CUDA libraries, which no peer needs for its preprocessing.
  if [[ "$*" == *torch==* ]]; then
    "${pip[@]}" install --no-deps --timeout 15 --retries 1 --index-url https://download.pytorch.org/whl/cpu \
      "$(grep -o 'torch==[0-9.]*' <<<"$*")" 2>/dev/null || true
  fi
  "${pip[@]}" install "$@" 2> >(grep -v '^WARNING: Location' >&2)
  "${pip[@]}" check || echo "peers: pip finds conflicts among the pins of $venv (above)" >&2
  echo "$wanted" >"$venv/installed"
}

mkdir -p "$folder"
make_one meds-eic-ar MEDS-EIC-AR==0.5.1 torch==2.13.0
make_one cocoa cocoa-tokenizer==26.10.3
make_one transformers transformers==5.23.0 accelerate==1.15.0 torch==2.13.0
