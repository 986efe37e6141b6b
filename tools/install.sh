#!/bin/sh
# Installs a release of alitok for one user:
#
#     sh install.sh
#
# It downloads the archive for this machine, checks its SHA-256, unpacks it to PREFIX/share/alitok and
# links the program into PREFIX/bin. Nothing is changed before all is there and right.
#
#     ALITOK_PREFIX      where to (default: ~/.local)
#     ALITOK_VERSION     a tag such as v0.1.0 (default: the newest release)
#     ALITOK_REPOSITORY  OWNER/NAME on GitHub (default: the one that published this script)
#     ALITOK_URL         an address that holds the archives, in place of GitHub
set -eu

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

download() {
    if has curl; then
        curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"
    elif has wget; then
        wget --quiet --output-document="$2" "$1"
    else
        fail 'neither curl nor wget is installed'
    fi || fail "cannot download $1"
}

sha256() {
    if has sha256sum; then
        sha256sum "$1"
    elif has shasum; then
        shasum -a 256 "$1"
    else
        fail 'neither sha256sum nor shasum is installed, so the archive cannot be checked'
    fi | cut -d ' ' -f 1
}

target() {
    system=$(uname -s)
    processor=$(uname -m)
    case $processor in
        x86_64 | amd64) processor=x86_64 ;;
        aarch64 | arm64) processor=aarch64 ;;
        *) fail "there is no archive for the processor $processor; build from source" ;;
    esac
    case $system in
        Linux)
            if ldd --version 2>&1 | grep -qi musl; then
                fail 'this system has musl, and the archives need glibc 2.35; build from source'
            fi
            echo "$processor-unknown-linux-gnu"
            ;;
        Darwin) echo "$processor-apple-darwin" ;;
        *) fail "there is no archive that this script can install on $system; on Windows unpack the .zip" ;;
    esac
}

main() {
    repository=${ALITOK_REPOSITORY:-@REPOSITORY@}
    prefix=${ALITOK_PREFIX:-${HOME:?neither ALITOK_PREFIX nor HOME is set}/.local}
    if [ -n "${ALITOK_URL:-}" ]; then
        address=$ALITOK_URL
    else
        case $repository in
            */*) ;;
            *) fail 'this copy does not know its repository; set ALITOK_REPOSITORY to OWNER/NAME' ;;
        esac
        address=https://github.com/$repository/releases
        if [ -n "${ALITOK_VERSION:-}" ]; then
            address=$address/download/$ALITOK_VERSION
        else
            address=$address/latest/download
        fi
    fi
    for tool in tar gzip uname cut; do
        has "$tool" || fail "$tool is not installed"
    done
    triple=$(target)
    archive=alitok-$triple.tar.gz
    home=$prefix/share/alitok
    if [ -e "$home" ] && [ ! -f "$home/alitok" ]; then
        fail "$home holds something else than alitok; move it away, or set ALITOK_PREFIX"
    fi
    if [ -e "$prefix/bin/alitok" ] && [ ! -L "$prefix/bin/alitok" ]; then
        fail "$prefix/bin/alitok is no link of this script; move it away, or set ALITOK_PREFIX"
    fi
    mkdir -p "$prefix/bin" "$prefix/share" || fail "cannot write to $prefix"

    scratch=$(mktemp -d "$prefix/share/.alitok-XXXXXX") || fail "cannot write to $prefix/share"
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    download "$address/$archive" "$scratch/$archive"
    download "$address/$archive.sha256" "$scratch/$archive.sha256"
    expected=$(cut -d ' ' -f 1 "$scratch/$archive.sha256")
    found=$(sha256 "$scratch/$archive")
    [ -n "$found" ] || exit 1
    if [ "$found" != "$expected" ]; then
        fail "$archive is damaged: its SHA-256 is $found, not $expected; nothing was installed"
    fi
    mkdir "$scratch/unpacked"
    tar -xzf "$scratch/$archive" -C "$scratch/unpacked" || fail "cannot unpack $archive"
    set -- "$scratch"/unpacked/alitok-*
    new=$1
    "$new/alitok" --version >/dev/null || fail 'the program does not run on this machine'

    if [ -e "$home" ]; then
        mv "$home" "$scratch/old"
    fi
    mv "$new" "$home"
    ln -sfn "$home/alitok" "$prefix/bin/alitok"
    mkdir -p "$prefix/share/man/man1" "$prefix/share/bash-completion/completions" \
        "$prefix/share/zsh/site-functions" "$prefix/share/fish/vendor_completions.d"
    for page in "$home"/man/man1/*.1; do
        ln -sfn "$page" "$prefix/share/man/man1/$(basename "$page")"
    done
    ln -sfn "$home/completions/alitok.bash" "$prefix/share/bash-completion/completions/alitok"
    ln -sfn "$home/completions/_alitok" "$prefix/share/zsh/site-functions/_alitok"
    ln -sfn "$home/completions/alitok.fish" "$prefix/share/fish/vendor_completions.d/alitok.fish"

    printf '%s is in %s\n' "$("$prefix/bin/alitok" --version)" "$prefix/bin/alitok"
    case :${PATH:-}: in
        *:"$prefix/bin":*) ;;
        *) printf 'Add %s to PATH to call it by name.\n' "$prefix/bin" ;;
    esac
}

# At the end, so that a script that was cut off in the middle does nothing.
main
