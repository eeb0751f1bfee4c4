#!/bin/sh
# Prints the newest Python that this project supports and that can make a virtual environment. Where there is none,
# says on stderr what to install. Every match on the PATH is tried, because the first may be a shim that does not run.
set -eu

suits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
found=''
without_venv=''

consider() {
    [ -z "$found" ] && [ -x "$1" ] && "$1" -c "$suits" >/dev/null 2>&1 || return 0
    # Debian's python3 has the venv module but, until python3-venv is there, not the ensurepip that it needs.
    path=$("$1" -c 'import sys; print(sys.executable)')
    if "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$path; else without_venv=$path; fi
}

for name in python3.13 python3.12 python3.11 python3; do
    IFS=:
    for dir in $PATH; do
        consider "$dir/$name"
    done
done

if [ -n "$found" ]; then
    echo "$found"
elif [ -n "$without_venv" ]; then
    version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$without_venv cannot make a virtual environment: install its venv module" \
        "(Debian, Ubuntu: apt-get install python$version-venv)" >&2
    exit 1
else
    echo "no Python 3.11, 3.12 or 3.13 found: install one" \
        "(Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.13)" >&2
    exit 1
fi
