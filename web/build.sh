#!/usr/bin/env bash
# Builds the page that needs no server: `web/build.sh [MODEL_FOLDER] [OUT_FOLDER]`, by default models/mini
# into web/dist. README.md says what is needed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model=$(realpath "${1:-$root/models/mini}")
out=${2:-$root/web/dist}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# What is in the folder goes away, so it must be a page that this script made.
if [[ -e "$out" && -n "$(ls -A "$out")" && ! -f "$out/alitok_web.js" ]]; then
    fail "$out is no page that this script made, and would be overwritten; name another folder"
fi
mkdir -p "$out"
out=$(realpath "$out")
cd "$root"

for file in config.json classes.json tokenizer.safetensors generator.safetensors; do
    [[ -f "$model/$file" ]] || fail "$model has no $file: the page draws with a model of classes"
done

target=wasm32-unknown-unknown
if [[ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]]; then
    rustup target add "$target" ||
        fail "there is no standard library for $target: \`rustup target add $target\` fetches it"
fi
version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
if ! wasm-bindgen --version 2>/dev/null | grep -qx "wasm-bindgen $version"; then
    fail "wasm-bindgen $version is not installed: \`cargo install wasm-bindgen-cli --version $version\`"
fi

# Browsers have had 128-bit vectors since 2021 (Safari since 2023).
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-C target-feature=+simd128"
cargo build --profile web --target "$target" -p alitok-web
built=${CARGO_TARGET_DIR:-target}/$target/web/alitok_web.wasm

rm -rf "${out:?}"/*
wasm-bindgen --target web --no-typescript --remove-name-section --remove-producers-section \
    --out-dir "$out" "$built"
# Optional: a tenth smaller.
if command -v wasm-opt >/dev/null; then
    wasm-opt -O3 --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int \
        --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
        "$out/alitok_web_bg.wasm" -o "$out/small.wasm"
    mv "$out/small.wasm" "$out/alitok_web_bg.wasm"
fi

# The server's page, with `local.js` before its script.
script='<script src="local.js"></script>'
sed "s|^<script>\$|$script\\n<script>|" crates/server/src/page.html >"$out/index.html"
grep -q -F "$script" "$out/index.html" || fail "crates/server/src/page.html has no line \`<script>\`"
cp web/page/local.js web/page/worker.js "$out"
cat LICENSE-MIT >"$out/licences.txt"
if command -v python3 >/dev/null; then
    python3 tools/third-party-licences.py --package alitok-web --target "$target" \
        --out "$out/third-party.md"
    { printf '\n\n'; cat "$out/third-party.md"; } >>"$out/licences.txt"
    rm "$out/third-party.md"
fi

# Weights are named by what is in them, so that browsers may keep them for ever.
digest() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -c 1-16; }
size() { wc -c <"$1" | tr -d ' '; }
mkdir "$out/model"
files=
for part in tokenizer generator; do
    name=$part.$(digest "$model/$part.safetensors").gz
    gzip -9 -n -c "$model/$part.safetensors" >"$out/model/$name"
    files+="${files:+, }\"$part\": {\"file\": \"$name\", \"bytes\": $(size "$out/model/$name")"
    files+=", \"unpacked\": $(size "$model/$part.safetensors")}"
done
printf '{"name": "%s", "config": %s, "classes": %s, "files": {%s}}\n' "$(basename "$model")" \
    "$(cat "$model/config.json")" "$(cat "$model/classes.json")" "$files" >"$out/model/manifest.json"

page=0
for file in "$out"/*.html "$out"/*.js "$out"/*.wasm; do page=$((page + $(size "$file"))); done
echo "$out: the page has $page bytes, licences $(size "$out/licences.txt")," \
    "the model $(cat "$out"/model/* | wc -c | tr -d ' ')"
