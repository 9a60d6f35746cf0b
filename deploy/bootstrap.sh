# shellcheck shell=bash
# Sourced by deploy/demo.sh and tests/run.sh from the root of the checkout: leaves a working uv in $UV, installing one into
# .tools if need be. It changes nothing outside the checkout except uv's own caches.

# An interpreter version asked for by the environment would beat the one that .python-version asks for.
unset PYENV_VERSION
export UV_PYTHON_DOWNLOADS="${UV_PYTHON_DOWNLOADS:-automatic}"

# uv keeps its cache and interpreters below the home folder; some users have none that they can write to.
if [ ! -d "${HOME:-}" ] || [ ! -w "${HOME:-}" ]; then
    export UV_CACHE_DIR="${UV_CACHE_DIR:-$PWD/.tools/cache}"
    export UV_PYTHON_INSTALL_DIR="${UV_PYTHON_INSTALL_DIR:-$PWD/.tools/python}"
    export UV_PYTHON_BIN_DIR="${UV_PYTHON_BIN_DIR:-$PWD/.tools/bin}"
fi

# Whether "$1" is a uv that starts (a shim can exist and fail) and is new enough to know dependency groups.
works_as_uv() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    [[ $version =~ ^uv\ ([0-9]+)\.([0-9]+) ]] || return 1
    ((BASH_REMATCH[1] > 0 || BASH_REMATCH[2] >= 5))
}

# Whether "$1" is a Python from which a virtual environment with pip can be made. Started from /, so that .python-version
# cannot stop a shim.
works_as_python() {
    (cd / && "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))') >/dev/null 2>&1
}

# Makes .tools with a uv in it.
install_uv() {
    local python
    for python in python3.12 python3 python3.13 python3.14 python3.11 python3.10 python3.9 python \
        /usr/bin/python3 /usr/local/bin/python3 /opt/homebrew/bin/python3; do
        works_as_python "$python" || continue
        echo "Installing uv into .tools …" >&2
        (cd / && "$python" -m venv --clear "$OLDPWD/.tools") &&
            .tools/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check 'uv>=0.9' >&2 &&
            return 0
    done
    echo "error: no uv, and no Python 3.9 or newer with venv and pip to install it with." >&2
    echo "Install uv (https://docs.astral.sh/uv/getting-started/installation/) or python3-venv, then try again." >&2
    return 1
}

find_uv() {
    local candidate
    for candidate in "${UV:-uv}" "$PWD/.tools/bin/uv" "${HOME:-}/.local/bin/uv"; do
        if works_as_uv "$candidate"; then
            UV=$candidate
            return 0
        fi
    done
    install_uv || return 1
    UV=$PWD/.tools/bin/uv
    works_as_uv "$UV"
}

# Prints the first Python on PATH of the version in .python-version, or with "newer" of any later one.
python_on_path() {
    local python
    for python in $(type -aP python3.12 python3.13 python3.14 python3 python | sort -u); do
        "$python" - "$(cat .python-version)" "${1:-same}" 2>/dev/null <<'CODE' && return 0
import sys
wanted = tuple(int(part) for part in sys.argv[1].split("."))
found = sys.version_info[: len(wanted)]
if not (found > wanted if sys.argv[2] == "newer" else found == wanted):
    sys.exit(1)
print(sys.executable)
CODE
    done
    return 1
}

# Makes sure that uv finds a Python: that of .python-version, downloaded if need be, else a newer one. uv by itself gives up
# at a shim that exists and fails.
find_python() {
    "$UV" python find --no-python-downloads >/dev/null 2>&1 && return 0
    if UV_PYTHON=$(python_on_path); then
        export UV_PYTHON
        return 0
    fi
    unset UV_PYTHON
    echo "Downloading Python $(cat .python-version) …" >&2
    if "$UV" python install --quiet --managed-python 2>/dev/null; then
        export UV_PYTHON_PREFERENCE=only-managed
        return 0
    fi
    if UV_PYTHON=$(python_on_path newer); then
        echo "It cannot be downloaded; using $UV_PYTHON instead." >&2
        export UV_PYTHON
        return 0
    fi
    echo "error: no Python $(cat .python-version) or newer on this machine, and none can be downloaded." >&2
    return 1
}

find_uv && find_python
