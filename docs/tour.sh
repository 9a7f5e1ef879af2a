#!/usr/bin/env bash
# Does what README and docs tell a reader to do: builds the wheel, installs it into a fresh environment, and runs the commands
# and the Python of the pages in their order. They are taken from the pages, and shortened as docs/blocks.py says.
#
#   docs/tour.sh [FOLDER]
#
# Everything lies in FOLDER, which must be new or empty (a temporary one if absent), and stays there to be looked at. Needs
# Python 3.11 or newer (PYTHON=python3) and a package registry.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ -n "$(ls -A "$folder")" ]; then
    echo "$folder is not empty; name a new folder" >&2
    exit 2
fi
started=$SECONDS

say() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - started)); }

say "a copy of the sources, so that building leaves nothing in them"
mkdir "$folder/source"
tar -C "$root" --exclude=./.git --exclude='./.*' --exclude=./runs --exclude=./site --exclude=./build -cf - . | tar -C "$folder/source" -xf -

say "an environment with the wheel, nothing else"
"${PYTHON:-python3}" -m venv "$folder/environment"
export PATH="$folder/environment/bin:$PATH"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT="$root/constraints.txt"
unset PYTHONPATH
pip wheel --quiet --no-deps --wheel-dir "$folder" "$folder/source"
pip install --quiet "$(ls "$folder"/softprune-*.whl)[sample]"
rm -r "$folder/source"

for page in README.md docs/quickstart.md recipes/README.md docs/compare.md; do
    place="$folder/reader/${page//\//_}"
    mkdir -p "$place"
    cd "$place"
    commands=$(python "$root/docs/blocks.py" "$root/$page")
    while IFS= read -r line; do
        say "$page: $line"
        eval "$line"
    done <<<"$commands"
done

say "the Python of the pages"
mkdir "$folder/reader/python"
cd "$folder/reader/python"
python "$root/docs/reader.py" "$root"/{README.md,docs/python.md,docs/faq.md}

say "the tour is complete: every command and every line of Python has run. Left in $folder"
