#!/usr/bin/env bash
# Measures the first command of the README in a fresh clone: builds without any cache, draws, and prints the
# time on the clock, the processor time, and the crates that cost most. Registry downloads are done before.
#
#     tools/cold-start.sh [CRATES_TO_LIST]
#
# What to reach on two cores: three minutes on a quiet machine, six minutes of processor time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git clone --quiet . "$folder/clone"
cat >"$folder/rustc" <<'WRAPPER'
#!/usr/bin/env bash
# Cargo gives the compiler's path first.
crate=-
for ((i = 1; i < $#; i++)); do
    [[ "${!i}" == --crate-name ]] && j=$((i + 1)) && crate=${!j}
done
TIMEFORMAT="%U $crate"
{ time "$@" 2>&3; } 3>&2 2>>"$COLD_START_LOG"
WRAPPER
chmod +x "$folder/rustc"
cd "$folder/clone"
cargo fetch --locked --quiet
export COLD_START_LOG=$folder/log RUSTC_WRAPPER=$folder/rustc CARGO_TARGET_DIR=$folder/target
TIMEFORMAT="%R s on the clock, %U + %S s of processor time"
time cargo run --release --quiet -- generate --model mini --class "Smileys & Emotion" --class Flags \
    --class "People & Body" --count 8 --seed 1 --out samples.png
cmp samples.png docs/pictures/samples.png
sort -rn "$folder/log" | head -n "${1:-20}"
