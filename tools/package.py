#!/usr/bin/env python3
"""Makes what a release hands out for one platform.

    tools/package.py [--target TRIPLE] [--program FILE] [--features LIST] [--tag TAG]
                     [--out FOLDER] [--folder-only] [--no-check]

It builds the program, unless `--program` names one, puts what belongs to it into a folder, and packs
that: `alitok-TRIPLE.tar.gz`, or `.zip` for Windows, with its SHA-256 beside it. Equal contents make
equal archives. Then it unpacks the archive somewhere else and draws a picture with what is in it.
The program has to run here, because it writes its own completions and manual pages.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPLETIONS = {
    "bash": "alitok.bash", "zsh": "_alitok", "fish": "alitok.fish", "powershell": "alitok.ps1",
}
# What lies beside the program, where it looks for it.
BUNDLED = ["data", "models", "protocols", "recipes"]
TEXTS = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "SECURITY.md"]


def fail(message):
    sys.exit(f"package: {message}")


def run(*command, **options):
    try:
        return subprocess.run([str(word) for word in command], check=True, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"`{' '.join(map(str, command))}` failed: {error}")


def told(*command):
    return run(*command, stdout=subprocess.PIPE, cwd=ROOT).stdout.decode("utf-8")


def version():
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    package = manifest.split("[workspace.package]", 1)[1]
    return re.search(r'^version = "([^"]+)"', package, re.MULTILINE)[1]


def host():
    return re.search(r"^host: (\S+)", told("rustc", "-vV"), re.MULTILINE)[1]


def build(target, features):
    command = ["cargo", "build", "--release", "--locked", "-p", "alitok", "--target", target]
    run(*command, *(["--features", features] if features else []), cwd=ROOT)
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    if not folder.is_absolute():
        folder = ROOT / folder
    return folder / target / "release" / ("alitok.exe" if "windows" in target else "alitok")


def tracked(folder):
    """The files of a folder that belong to the repository, or all of them outside of one."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL) if shutil.which("git") else None
    if listed and listed.returncode == 0 and listed.stdout:
        return [name for name in listed.stdout.decode("utf-8").split("\0") if name]
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path.relative_to(ROOT).as_posix() for path in files]


def gather(stage, program, target, features):
    """Puts all that an archive holds into a folder."""
    stage.mkdir(parents=True)
    own = stage / ("alitok.exe" if "windows" in target else "alitok")
    shutil.copyfile(program, own)
    own.chmod(0o755)
    names = [*TEXTS, *(name for folder in BUNDLED for name in tracked(folder))]
    names += tracked("docs")
    for name in names:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, stage / name)
    run(sys.executable, ROOT / "tools/third-party-licences.py", "--target", target,
        "--features", features, "--out", stage / "THIRD-PARTY-LICENSES.md")
    library = Path(told("rustc", "--print", "sysroot").strip())
    library = library / "share/doc/rust/COPYRIGHT-library.html"
    if library.exists():
        shutil.copyfile(library, stage / "THIRD-PARTY-LICENSES-rust-library.html")
    (stage / "completions").mkdir()
    for shell, name in COMPLETIONS.items():
        script = run(own, "completions", shell, stdout=subprocess.PIPE).stdout
        (stage / "completions" / name).write_bytes(script)
    run(own, "man", "--out", stage / "man" / "man1", stderr=subprocess.DEVNULL)


def pack(stage, archive):
    """Packs a folder: sorted, without owners and times, so that equal files make equal archives."""
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    names = [path.relative_to(stage.parent).as_posix() for path in files]
    is_program = lambda path: path.parent == stage and path.stem == "alitok"
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path, name in zip(files, names):
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if is_program(path) else 0o644) << 16
                packed.writestr(entry, path.read_bytes())
        return
    with open(archive, "wb") as file, \
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as whole, \
            tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for path, name in zip(files, names):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o755 if is_program(path) else 0o644
            with open(path, "rb") as contents:
                packed.addfile(entry, contents)


def check(archive, stage):
    """Draws a picture with what was packed, far from this repository."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(archive, folder)
        unpacked = Path(folder) / stage.name
        own = unpacked / ("alitok.exe" if (unpacked / "alitok.exe").exists() else "alitok")
        own.chmod(0o755)  # a .zip does not say so
        environment = {name: value for name, value in os.environ.items() if name != "ALITOK_HOME"}
        picture = Path(folder) / "picture.png"
        run(own, "generate", "--class", "Flags", "--seed", "1", "--out", picture, cwd=folder,
            env=environment)
        if not picture.read_bytes().startswith(b"\x89PNG"):
            fail("the packed program drew no PNG")
        # The program would find this repository, too, if its own folder lacked something.
        for name in BUNDLED + ["THIRD-PARTY-LICENSES.md", "man/man1/alitok.1", "completions/_alitok"]:
            if not (unpacked / name).exists():
                fail(f"{name} is not in the archive")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", help="default: this machine's")
    parser.add_argument("--program", type=Path, help="a program that is built already")
    parser.add_argument("--features", default="gpu,reference", help="default: gpu,reference")
    parser.add_argument("--tag", help="fail if the version is not this tag's")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "package")
    parser.add_argument("--folder-only", action="store_true", help="no archive: the folder `alitok`")
    parser.add_argument("--no-check", action="store_true", help="do not draw a picture with it")
    arguments = parser.parse_args()

    if arguments.tag and arguments.tag != f"v{version()}":
        fail(f"the tag is {arguments.tag}, but the workspace's version is {version()}")
    target = arguments.target or host()
    program = arguments.program or build(target, arguments.features)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    stage = out / ("alitok" if arguments.folder_only else f"alitok-{version()}-{target}")
    if stage.exists():
        shutil.rmtree(stage)
    gather(stage, program, target, arguments.features)
    if arguments.folder_only:
        print(stage)
        return
    archive = out / f"alitok-{target}{'.zip' if 'windows' in target else '.tar.gz'}"
    pack(stage, archive)
    if not arguments.no_check:
        check(archive, stage)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    checksum = archive.with_name(archive.name + ".sha256")
    checksum.write_bytes(f"{digest}  {archive.name}\n".encode())
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")


if __name__ == "__main__":
    main()
