#!/usr/bin/env bash
# What is published: the wheel and the source distribution, built as a release builds them, and installed as a user would.
# Then what publishes it: the workflows.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
need go golang-go
uv=$root/.venv/bin/uv
tool() { "$uv" tool run --quiet --from "$1" "${@:2}"; }
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

echo "-- built, and built again"
# tree FOLDER: what a clone would hold, with what is not yet committed.
tree() { mkdir "$1" && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -c | tar -C "$1" -x; }
tree "$work/one"
tree "$work/two"
(cd "$work/one" && "$uv" build --quiet --sdist --out-dir "$work/dist" && "$uv" build --quiet --wheel --out-dir "$work/dist")
# Another folder, and other times and modes of the files, as in another clone.
find "$work/two" -exec touch --date=2001-01-01 {} +
(cd "$work/two" && umask 077 && "$uv" build --quiet --out-dir "$work/again")
for file in "$work"/dist/coral_discovery-*; do
  cmp "$file" "$work/again/$(basename "$file")"
  ok "the same bytes: $(basename "$file")"
done
wheel=$(echo "$work"/dist/*.whl)
sdist=$(echo "$work"/dist/*.tar.gz)

echo "-- what is in it"
want "its description can be shown" PASSED tool twine==7.0.0 twine check --strict "$wheel" "$sdist"
python3 -m zipfile --list "$wheel" | awk '{print $1}' >"$work/wheel.txt"
for path in discovery/py.typed discovery/_gen/descriptors.binpb; do
  want "$path" "^$path$" cat "$work/wheel.txt"
done
# Whatever is in src is in the wheel, the .lua files too; and nothing else is, but its own metadata.
diff <(git ls-files --cached --others --exclude-standard src/discovery | sed 's,^src/,,' | sort) \
  <(grep '^discovery/' "$work/wheel.txt" | sort)
refuse "nothing but the package" '' grep -Ev '^(discovery/|coral_discovery-[^/]*\.dist-info/|File$)' "$work/wheel.txt"
tar -tzf "$sdist" | cut -d/ -f2- >"$work/sdist.txt"
for path in LICENSE proto/buf.yaml tests/support.py constraints.txt; do want "source: $path" "^$path$" cat "$work/sdist.txt"; done
refuse "no bytecode, no secrets" '' grep -E '\.pyc$|secrets/' "$work/sdist.txt"

echo "-- installed, with nothing else"
"$uv" venv --quiet --no-python-downloads "$work/plain"
"$uv" pip install --quiet --python "$work/plain" --constraint constraints.txt "$wheel"
for command in coral coral-discovery coral-discoveryctl; do
  want "$command" '^coral[a-z-]* [0-9]+\.[0-9]+' env -i HOME=/nonexistent "$work/plain/bin/$command" --version
done
BIN=$work/plain/bin serve server
want "a server" '"status":"ok"' python3 -c \
  "import urllib.request as r; print(r.urlopen('http://127.0.0.1:$port/health').read().decode())"
printf 'import discovery.client\nreveal_type(discovery.client.DiscoveryClient)\n' >"$work/typed.py"
# Elsewhere, or mypy would take this repository's own settings and source.
types() { (cd "$work" && tool mypy==2.4.1 mypy --strict --python-executable "$work/plain/bin/python" typed.py); }
want "its types are seen" 'def \(.*discovery\.client' types
"$uv" pip install --quiet --python "$work/plain" --constraint constraints.txt "${wheel}[otel]"
want "the extra otel" '' "$work/plain/bin/python" -c 'import opentelemetry.exporter.otlp.proto.http.trace_exporter'

echo "-- what it is made of"
tool cyclonedx-bom==7.5.0 cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
  --output-format JSON --output-file "$work/sbom.json" "$work/plain/bin/python"
want "the SBOM names what is installed" '"grpclib"' grep '"name": "grpclib"' "$work/sbom.json"

echo "-- what publishes it"
GOBIN=$work/bin go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 >>"$work/go.log" 2>&1
"$work/bin/actionlint" -color
ok "actionlint"
