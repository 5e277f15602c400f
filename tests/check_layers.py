#!/usr/bin/env python3
"""Holds the tree to the table of layers in daemon/README.md.

The table (columns: layer, modules, outside library) is the only source: a module is a name in
backticks, `name*` stands for a family. A file belongs to the module whose name it bears, or to the
longest module that its name begins with (config_keys.c is a part of config). Rules:

  known     every file belongs to a module of the table
  down      no include of a module in a higher layer
  acyclic   no cycle of includes, between files or between modules
  private   a header in daemon/ is included by its own module only
  outside   a third-party header is included only by the module that the table names for it
  exports   foo.c exports only foo_* (or the name of the module that it is a part of)
  banned    no function that cannot be used safely

Usage: check_layers.py [--objects DIR] [--root DIR] | --self-test
--objects is the folder with the objects of the static library; without it `exports` is not judged.
--self-test breaks every rule once in a made-up tree and fails if that goes unnoticed.
The last line is `N passed, N failed`; the exit code is 1 if anything failed.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

BANNED = ["strcpy", "strcat", "sprintf", "vsprintf", "gets", "strtok", "atoi", "system", "popen", "setlocale"]

# How the table names a library, and which headers that is.
LIBRARIES = {
    "openssl": re.compile(r"openssl/"),
    "cjson": re.compile(r"(cjson/)?cJSON(_Utils)?\.h$"),
    "libcurl": re.compile(r"curl/"),
    "sqlite3": re.compile(r"sqlite3(ext)?\.h$"),
    "libmicrohttpd": re.compile(r"microhttpd\.h$"),
}
RULES = ["known", "down", "acyclic", "private", "outside", "exports", "banned"]


class Table:
    """The parsed table: module -> layer, library -> modules."""

    def __init__(self, text):
        self.layers, self.outside = {}, {}
        for cells in self._rows(text):
            number = int(re.match(r"\d+", cells[0]).group())
            for name in re.findall(r"`([a-z0-9_]+\*?)`", cells[1]):
                self.layers[name.rstrip("*").rstrip("_")] = number
            for clause in cells[2].split(";"):
                self._library(clause)

    @staticmethod
    def _rows(text):
        found = False
        for line in text.splitlines():
            cells = [c.strip() for c in line.strip().strip("|").split("|")]
            if line.startswith("|") and cells[0].lower() == "layer":
                found = True
            elif found and not line.startswith("|"):
                break
            elif found and re.match(r"\d", cells[0]):
                yield cells + [""] * (3 - len(cells))

    def _library(self, clause):
        names = {n.rstrip("*").rstrip("_") for n in re.findall(r"`([a-z0-9_]+\*?)`", clause)}
        for library in LIBRARIES:
            if re.search(rf"\b{library}\b", clause, re.IGNORECASE):
                self.outside.setdefault(library, set()).update(names)

    def owners(self, stem):
        """Modules that a file name may stand for, the longest first."""
        parts = stem.split("_")
        names = ["_".join(parts[:n]) for n in range(len(parts), 0, -1)]
        return [n for n in names if n in self.layers]

    def module(self, stem):
        return (self.owners(stem) or [None])[0]


class Tree:
    def __init__(self, root):
        self.root = root
        self.files = sorted(p for d in ("include", "daemon") for p in (root / d).glob("*.[ch]"))
        self.text = {p: p.read_text(errors="replace") for p in self.files}
        self.headers = {p.name: p for p in self.files if p.suffix == ".h"}

    def includes(self, path):
        """(line number, name, the file in the tree or None)"""
        for number, line in enumerate(self.text[path].splitlines(), 1):
            m = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
            if m:
                yield number, m.group(1), self.headers.get(m.group(1))


def bare(text):
    """C without comments and literals; line numbers stay."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda m: "\n" * m.group().count("\n") + " ", text, flags=re.DOTALL)


def cycles(graph):
    """One finding for each group of nodes that reach each other."""
    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    reached = {node: reach(node) for node in graph}
    groups = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in graph if a in reached[a]}
    return sorted(" <-> ".join(sorted(g)) for g in groups)


def check_known(tree, table, _objects):
    for path in tree.files:
        if not table.module(path.stem):
            yield f"{path.relative_to(tree.root)}: its module is not in the table of layers"
    for module, layer in table.layers.items():
        if layer < 5 and not any(table.module(p.stem) == module for p in tree.files):
            yield f"module {module} is in the table of layers, but there is no such file"


def check_down(tree, table, _objects):
    for path in tree.files:
        mine = table.module(path.stem)
        for number, name, target in tree.includes(path):
            other = table.module(target.stem) if target else None
            if mine and other and table.layers[other] > table.layers[mine]:
                yield (f"{path.relative_to(tree.root)}:{number}: {mine} (layer {table.layers[mine]}) includes "
                       f"{name} of layer {table.layers[other]}")


def check_acyclic(tree, table, _objects):
    files, modules = {}, {}
    for path in tree.files:
        mine = table.module(path.stem)
        for _number, _name, target in tree.includes(path):
            if not target:
                continue
            files.setdefault(path.name, set()).add(target.name)
            other = table.module(target.stem)
            if mine and other and mine != other:
                modules.setdefault(mine, set()).add(other)
    for group in cycles(files):
        yield f"files include each other in a circle: {group}"
    for group in cycles(modules):
        yield f"modules include each other in a circle: {group}"


def check_private(tree, table, _objects):
    for path in tree.files:
        for number, name, target in tree.includes(path):
            if target and target.parent.name == "daemon" and table.module(target.stem) != table.module(path.stem):
                yield f"{path.relative_to(tree.root)}:{number}: {name} is private to {table.module(target.stem)}"


def check_outside(tree, table, _objects):
    for path in tree.files:
        for number, name, _target in tree.includes(path):
            for library, pattern in LIBRARIES.items():
                if pattern.match(name) and not set(table.owners(path.stem)) & table.outside.get(library, set()):
                    where = " ".join(sorted(table.outside.get(library, []))) or "nowhere"
                    yield f"{path.relative_to(tree.root)}:{number}: {name} belongs in: {where}"


def exported(path):
    out = subprocess.run(["nm", "-P", "-g", "--defined-only", str(path)], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in out.stdout.splitlines() if line.strip()]


def check_exports(tree, table, objects):
    if objects is None:
        return
    sources = {p.name: p for p in tree.files if p.suffix == ".c" and p.parent.name == "daemon"}
    found = {o.name[:-2]: o for o in objects.rglob("*.c.o") if o.name[:-2] in sources}
    if not found:
        yield f"{objects}: no objects of the static library"
    for name, path in sorted(found.items()):
        stem = sources[name].stem
        allowed = tuple(f"{p}_" for p in {stem, *table.owners(stem)})
        for symbol in exported(path):
            if not symbol.startswith(allowed) and not symbol.startswith("__"):
                yield f"daemon/{name}: exports {symbol}, which does not begin with {' or '.join(sorted(allowed))}"


def check_banned(tree, _table, _objects):
    pattern = re.compile(r"\b(" + "|".join(BANNED) + r")\s*\(")
    for path in tree.files:
        for number, line in enumerate(bare(tree.text[path]).splitlines(), 1):
            for m in pattern.finditer(line):
                yield f"{path.relative_to(tree.root)}:{number}: {m.group(1)} is banned"


def findings(root, objects):
    """rule -> list of findings"""
    tree, table = Tree(root), Table((root / "daemon/README.md").read_text())
    return {rule: list(globals()[f"check_{rule}"](tree, table, objects)) for rule in RULES}


# The self-test: a clean tree, and for every rule the ways to break it ------------------------------

CLEAN = {
    "daemon/README.md": "# x\n\n| layer | modules | outside library, only there |\n| --- | --- | --- |\n"
                        "| 0 ground | `base` (header only) | |\n"
                        "| 1 tools | `ink` · `pen` (a thing) | OpenSSL in `ink`; cJSON in `pen` |\n"
                        "| 2 state | `shelf_oak*` | sqlite3 in `shelf_oak*` |\n| 5 programs | `main` · `ctl` | |\n\n"
                        "| layer | modules | of another table |\n| 9 none | `wrong` | |\n",
    "include/base.h": "#pragma once\n",
    "include/ink.h": '#include "base.h"\nint ink_dry(void);\n',
    "include/pen.h": '#include "base.h"\nint pen_write(void);\n',
    "include/shelf_oak.h": '#include "pen.h"\nint shelf_oak_put(void);\n',
    "daemon/ink.c": '#include "ink.h"\n#include <string.h>\n/* sprintf( */\nint ink_dry(void)\n{\n\treturn 1;\n}\n',
    "daemon/pen.c": '#include "pen.h"\n#include "pen_tip.h"\n#include "ink.h"\nint pen_write(void)\n{\n'
                    '\treturn ink_dry() + (int)sizeof("atoi(");\n}\n',
    "daemon/pen_tip.h": '#include "base.h"\nint pen_tip_size(void);\n',
    "daemon/pen_tip.c": '#include "pen_tip.h"\nint pen_tip_size(void)\n{\n\treturn 2;\n}\n',
    "daemon/shelf_oak_door.c": '#include "shelf_oak.h"\nint shelf_oak_put(void)\n{\n\treturn pen_write();\n}\n',
}
BROKEN = [  # rule, file, text to put before the file (or a new file)
    ("known", "daemon/stray.c", "int stray_x;\n"),
    ("known", "include/penguin.h", "#pragma once\n"),
    ("down", "daemon/ink.c", '#include "shelf_oak.h"\n'),
    ("down", "include/base.h", '#include "ink.h"\n'),
    ("acyclic", "include/ink.h", '#include "pen.h"\n'),
    ("acyclic", "include/base.h", '#include "base.h"\n'),
    ("acyclic", "daemon/ink.c", '#include "pen.h"\n'),
    ("private", "daemon/ink.c", '#include "pen_tip.h"\n'),
    ("outside", "daemon/ink.c", "#include <cjson/cJSON.h>\n"),
    ("outside", "daemon/pen.c", "#include <openssl/evp.h>\n"),
    ("outside", "daemon/pen_tip.h", "#include <sqlite3.h>\n"),
    ("outside", "daemon/ink.c", '#include "microhttpd.h"\n'),
    ("outside", "daemon/shelf_oak_door.c", "#include <curl/curl.h>\n"),
    ("exports", "daemon/ink.c", "int helper;\nint helper = 3;\n"),
    ("exports", "daemon/pen_tip.c", "void ink_spill(void);\nvoid ink_spill(void)\n{\n}\n"),
    ("exports", "daemon/pen.c", "int penmanship;\nint penmanship = 3;\n"),
] + [("banned", "daemon/ink.c", f"#define SPILL(x) {name} (x)\n") for name in BANNED]
ALLOWED = [  # the same outside library where it belongs, and names that only look banned
    ("daemon/ink.c", "#include <openssl/evp.h>\n"),
    ("daemon/pen_tip.c", "#include <cJSON.h>\n"),
    ("daemon/shelf_oak_door.c", "#include <sqlite3.h>\n"),
    ("daemon/ink.c", "#define SPILL(x) strtok_r(x) snprintf(x) ink_system(x)\n"),
    ("daemon/pen_tip.c", "int pen_nib;\nint pen_nib = 3;\n"),
    ("daemon/ink.c", "static int helper(void)\n{\n\treturn 1;\n}\nint ink_x(void)\n{\n\treturn helper();\n}\n"),
]


def compile_made_up(root):
    """Objects of a made-up tree; the libraries' headers are not needed for that."""
    (root / "objects").mkdir()
    for source in (root / "daemon").glob("*.c"):
        text = re.sub(r'#include (<.*/.*>|<(sqlite3|cJSON)\.h>|"microhttpd\.h")', "", source.read_text())
        subprocess.run(["cc", "-w", "-c", "-x", "c", "-", "-I", str(root / "include"), "-I", str(root / "daemon"),
                        "-o", str(root / "objects" / f"{source.name}.o")], input=text, text=True, check=False,
                       capture_output=True)
    return root / "objects"


def judge_made_up(change, with_objects):
    """Findings of the clean tree with one file changed."""
    with tempfile.TemporaryDirectory(prefix="layers-") as name:
        root = pathlib.Path(name)
        files = dict(CLEAN)
        if change:
            files[change[0]] = change[1] + files.get(change[0], "")
        for path, text in files.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(text)
        return findings(root, compile_made_up(root) if with_objects else None)


def self_test():
    failed = []
    for change in [None, *ALLOWED]:
        wrong = [f for found in judge_made_up(change, True).values() for f in found]
        if wrong:
            failed.append(f"self-test: {change} must pass, but: {wrong}")
    for rule, path, text in BROKEN:
        if not judge_made_up((path, text), rule == "exports")[rule]:
            failed.append(f"self-test: {rule} did not notice {text!r} in {path}")
    return 1 + len(ALLOWED) + len(BROKEN), failed


def main():
    parser = argparse.ArgumentParser(description="Holds the tree to the table of layers.", allow_abbrev=False)
    parser.add_argument("--objects", type=pathlib.Path)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        count, failed = self_test()
    else:
        found = findings(args.root, args.objects)
        rules = [r for r in RULES if r != "exports" or args.objects]
        count, failed = len(rules), [f"{rule}: {text}" for rule in rules for text in found[rule]]
        broken = sum(1 for rule in rules if found[rule])
    for line in failed:
        print(line)
    n_failed = len(failed) if args.self_test else broken
    print(f"{count - n_failed} passed, {n_failed} failed")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
