# What scripts/example and scripts/test share; sourced, with the checkout as the working directory.

say() { printf '%s\n' "$*"; }
fail() { printf 'Error: %s\n' "$*" >&2; exit 1; }

# pyenv's own commands lead to one version at a time; we choose among all.
if command -v pyenv >/dev/null; then
    for bin in "$(pyenv root)"/versions/*/bin; do
        PATH="$PATH:$bin"
    done
    export PATH
fi

# The oldest Python 3 that will do.
oldest=7

# Whether $1 is a Python that the project runs on.
suits() { "$1" -c "import sys; sys.exit(not (3, $oldest) <= sys.version_info < (3, 14))" 2>/dev/null; }

# Print the path of a Python to work with: $PYTHON if that is set, else 3.11, which CI uses, else the newest.
find_python() {
    local name found=
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.$oldest to 3.13."
    fi
    for name in ${PYTHON:+"$PYTHON"} python3.11 python3.13 python3.12 python3.10 python3.9 python3.8 python3.7 python3 python; do
        if suits "$name"; then
            found="${found:-$name}"
            # Debian has these two in a package of their own.
            if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
                "$name" -c 'import sys; print(sys.executable)'
                return
            fi
        fi
    done
    if [ -n "$found" ]; then
        fail "$found cannot make virtualenvs. On Debian or Ubuntu: apt-get install $("$found" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
    fi
    fail "No Python 3.$oldest to 3.13 found. Install one, such as 3.11 (Debian 12: apt-get install python3 python3-venv;
elsewhere: https://www.python.org/downloads/ or pyenv install 3.11), or name it: PYTHON=/path/to/python $0"
}

# make_virtualenv DIRECTORY REQUIREMENT...: install the requirements into a new virtualenv there, unless that has been
# done by this Python, for this place, with the same setup.py and SOCKETS_STACK.
make_virtualenv() {
    local directory="$1" python stamp
    shift
    python="$(find_python)"
    stamp="$python, $PWD, $*, ${SOCKETS_STACK:-}, $(cksum < setup.py)"
    if [ -x "$directory/bin/python" ] && [ "$(cat "$directory/stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    say "Installing into $directory with $("$python" --version), which takes a minute once ..."
    "$python" -m venv --clear "$directory"
    "$directory/bin/python" -m pip install -qq --disable-pip-version-check "$@"
    printf '%s' "$stamp" > "$directory/stamp"
}
