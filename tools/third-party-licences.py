#!/usr/bin/env python3
"""Writes the licences of all that an archive or a container of `alitok` holds, as Markdown.

    tools/third-party-licences.py [--package NAME] [--target TRIPLE] [--features LIST] [--out FILE]

The crates are those that Cargo links for the package, the target and the features. Their texts come from the
sources that Cargo compiled, so nothing is looked up elsewhere; equal texts are printed once. A crate
without a text of its own gets the standard one of its licence, and one that has neither is an error.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What packages call such files, at any depth: C sources within a crate have their own.
NAMES = re.compile(r"^(licen[sc]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
# Sources that are called so, and not texts.
SOURCES = {".rs", ".py", ".toml", ".json", ".c", ".h", ".html", ".yml", ".yaml", ".png", ".tmpl"}
# Folders of a package that are not compiled into a program.
UNUSED = {"tests", "test", "benches", "examples", "doc", "docs", "fuzz", "ci", "contrib", "programs"}
# Packages without a text, and the one of the same repository that has it.
SAME_REPOSITORY = {"alloc-stdlib": "alloc-no-stdlib"}
MIT = """MIT License

Copyright (c) {holders}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def cargo(*arguments):
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"third-party-licences: `cargo {' '.join(arguments)}` failed")
    return done.stdout


def crates(root, target, features):
    """What Cargo links: packages of `cargo metadata`, without those of this workspace."""
    chosen = ["--target", target] if target else []
    wanted = ["--features", features] if features else []
    tree = cargo("tree", "--locked", "-p", root, *chosen, *wanted,
                 "-e", "normal", "--prefix", "none", "--format", "{p}")
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--all-features"))
    packages = [
        package for package in metadata["packages"]
        if package["source"] and (package["name"], "v" + package["version"]) in linked
    ]
    return sorted(packages, key=lambda package: (package["name"], package["version"]))


def read(path):
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    return "\n".join(line.rstrip() for line in text.strip("\n\ufeff").split("\n")) + "\n"


def texts_of(package):
    """The texts in the package's folder."""
    folder = Path(package["manifest_path"]).parent
    found = {
        path for path in folder.rglob("*")
        if path.is_file() and NAMES.match(path.name) and path.suffix.lower() not in SOURCES
        and not UNUSED & set(path.relative_to(folder).parts[:-1])
    }
    if package["license_file"]:
        found.add(folder / package["license_file"])
    return [read(path) for path in sorted(found)]


def standard(package):
    """The text of the licence that a package without one names."""
    licence = package["license"] or ""
    names = set(re.split(r"[\s()/]+", licence))
    if "AND" in names or "WITH" in names and "OR" not in names:
        return None
    if "Apache-2.0" in names:
        return read(ROOT / "LICENSE-APACHE")
    if "MIT" in names:
        authors = [re.sub(r"\s*<.*>", "", author) for author in package["authors"]]
        return MIT.format(holders=", ".join(authors) or f"the authors of {package['name']}")
    return None


def fenced(text):
    fence = "`" * max([3] + [len(run) + 1 for run in re.findall(r"`{3,}", text)])
    return f"{fence}text\n{text}{fence}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--package", default="alitok")
    parser.add_argument("--target")
    parser.add_argument("--features", default="")
    parser.add_argument("--out", default="THIRD-PARTY-LICENSES.md")
    arguments = parser.parse_args()

    packages = crates(arguments.package, arguments.target, arguments.features)
    named = {package["name"]: package for package in packages}
    holders, missing = {}, []
    for package in packages:
        found = texts_of(package)
        sibling = named.get(SAME_REPOSITORY.get(package["name"]))
        if not found and sibling:
            found = texts_of(sibling)
        if not found:
            text = standard(package)
            if text is None:
                missing.append(f"{package['name']} {package['version']} ({package['license']})")
                continue
            found = [text]
        for text in dict.fromkeys(found):
            holders.setdefault(text, []).append(f"{package['name']} {package['version']}")
    if missing:
        sys.exit("third-party-licences: no text for " + ", ".join(missing))

    page = [
        "# Licences of others\n",
        "`alitok` is licensed under MIT or Apache-2.0, at your option (`LICENSE-MIT`, "
        "`LICENSE-APACHE`). It is made with, and comes with, what follows.\n",
        "This software is based in part on the work of the Independent JPEG Group.\n",
        "## Pictures, weights, names and fonts\n",
        "- **Bundled pictures** (`data/noto-emoji-64.tar`, and what the bundled model draws after "
        "them): [Noto Emoji](https://github.com/googlefonts/noto-emoji), © Google and contributors, "
        "Apache-2.0; scaled to 64 pixels, composited on white and reduced to palettes. Their list "
        "comes from [emoji-data](https://github.com/iamcal/emoji-data), © Cal Henderson, MIT.\n"
        "- **Bundled pictures with captions** (`data/emoji-64.tar`, and what models that learned from "
        "them draw): Noto Emoji as above; [Twemoji](https://github.com/jdecked/twemoji), © 2020 "
        "Twitter, Inc and other contributors, graphics under "
        "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/); [Fluent "
        "Emoji](https://github.com/microsoft/fluentui-emoji), © Microsoft Corporation, MIT; all "
        "changed: scaled to 64 pixels, composited on white and reduced to palettes.\n"
        "- **EfficientNet-Lite0** (`models/efficientnet-lite0`): © Google and © 2020 ML Illustrated, "
        "Apache-2.0; later blocks and the classifier are left out.\n"
        "- **Roboto** (within the program, for figures): © 2011 Google, Apache-2.0; cut down to the "
        "signs that figures use.\n"
        "- **ImageNet's class names** (within the program): the licence is below.\n",
    ]
    for title, path in [
        ("Apache-2.0: Noto Emoji, EfficientNet-Lite0, Roboto", "data/LICENSE"),
        ("emoji-data", "data/LICENSE-emoji-data"),
        ("CC BY 4.0: Twemoji's graphics", "data/LICENSE-twemoji"),
        ("Fluent Emoji", "data/LICENSE-fluent-emoji"),
        ("ImageNet's class names", "crates/tokens/assets/imagenet_classes.LICENSE"),
    ]:
        page.append(f"### {title}\n\n{fenced(read(ROOT / path))}")
    page.append(
        "## Crates\n\nBeside these, the Rust standard library is in the program: © The Rust Project "
        "Developers, MIT or Apache-2.0, with parts under the licences that its "
        "[COPYRIGHT](https://github.com/rust-lang/rust/blob/master/COPYRIGHT) names. The sources of "
        "every crate are at the address in its row, unchanged.\n"
    )
    page.append("| crate | licence | source |\n| --- | --- | --- |\n" + "".join(
        f"| {package['name']} {package['version']} | {package['license'] or 'see below'} | "
        f"<https://crates.io/crates/{package['name']}/{package['version']}> |\n"
        for package in packages
    ))
    page.append("## Texts\n")
    for text, names in sorted(holders.items(), key=lambda item: (-len(item[1]), item[1])):
        page.append(f"### {', '.join(names)}\n\n{fenced(text)}")
    Path(arguments.out).write_text("\n".join(page), encoding="utf-8")
    print(f"{arguments.out}: {len(packages)} crates, {len(holders)} texts")


if __name__ == "__main__":
    main()
