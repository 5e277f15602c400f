#!/usr/bin/env python3
"""Writes what the programs and docs/configuration.md know into the manual pages: update.py HOOKD HOOKCTL [--check].

A page keeps its prose; what stands between its `; from NAME` and `; end` lines is made here, from `--help`, from
`help COMMAND` and from the reference of the configuration (which is made from the table of keys). --check changes nothing
and fails if a page is not up to date.
"""
import pathlib
import re
import subprocess
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
CONFIGURATION = HERE.parent / "configuration.md"


def run(*command):
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"\(/\S*/e2b-hookd/config\.ini\)", "(/etc/e2b-hookd/config.ini)", said)  # however this one was built


def escape(text):
    return re.sub(r"([\\*_#`])", r"\\\1", text)


def wrap(text, indent):
    """A paragraph of escaped text at a depth of tabs. A line must not begin with a mark of scdoc's."""
    lines = textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False)
    return "".join("\t" * indent + re.sub(r"^([-.;\[|\]])", r"\\\1", line) + "\n" for line in lines)


def term(left, text, indent=0):
    return "\t" * indent + left + "\n" + wrap(text, indent + 1) + "\n"


def read_options(text):
    """[(names, value, help)] of a help text."""
    found = re.findall(r"^ {2}(?:(-\w), | {4})(--[a-z-]+)(?: ([A-Z]+))? +(\S.*)$", text, re.MULTILINE)
    return [((short, long) if short else (long,), value, words) for short, long, value, words in found]


def options_text(options):
    pages = ""
    for names, value, words in options:
        left = ", ".join(f"*{name}*" for name in names) + (f" _{value}_" if value else "")
        pages += term(left, escape(words[0].upper() + words[1:]) + ".")
    return pages


def hookd_options(hookd, hookctl):
    return options_text(read_options(run(hookd, "--help")))


def command_names(hookctl):
    overview = run(hookctl, "help")
    return re.findall(r"^  ([a-z][a-z-]*) {2,}\S", overview.split("Options of every command")[0], re.MULTILINE)


def commands(hookctl):
    """[(name, argument, text, options)] in the order of the overview; without the options that every command takes."""
    common = {names for names, _, _ in read_options(run(hookctl, "help"))}
    for name in command_names(hookctl):
        text = run(hookctl, "help", name)
        usage, body = text.split("\n\n", 1)
        argument = usage.split(f" {name}", 1)[1].replace("[OPTION]…", "").strip()
        description = " ".join(line for line in body.split("\n  ", 1)[0].split("\n") if line.strip())
        yield name, argument, description, [o for o in read_options(text) if o[0] not in common]


def hookctl_commands(hookd, hookctl):
    pages = ""
    for name, argument, description, options in commands(hookctl):
        text = escape(description[0].upper() + description[1:])
        if options:
            text += " Options: " + ", ".join(f"*{names[-1]}*" for names, _, _ in options) + "."
        pages += term(f"*{name}*" + (f" _{argument}_" if argument else ""), text)
    return pages


def hookctl_options(hookd, hookctl):
    options = {names: (names, value, words) for names, value, words in read_options(run(hookctl, "help"))}
    for _, _, _, own in commands(hookctl):
        options.update({names: (names, value, words) for names, value, words in own if names not in options})
    return options_text(options.values())


def configuration_keys(hookd, hookctl):
    pages = ""
    for section in CONFIGURATION.read_text().split("\n## ")[1:]:
        title, body = section.split("\n", 1)
        intro = body.split("\n| key |")[0].strip()
        pages += f"## {escape(title)}\n\n" + wrap(escape(intro.replace("`", "")), 0) + "\n"
        for key, fallback, value, reload, meaning in re.findall(
                r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*) \|$", body, re.MULTILINE):
            fallback = fallback.strip("`")
            notes = [value] + ([f"default {fallback}"] if fallback != "–" else [])
            notes += ["a change needs a restart"] if reload == "restart" else []
            pages += term(f"*{escape(key)}*", escape(meaning.replace("`", "")) + " (" + escape("; ".join(notes)) + ")")
    return pages


MAKERS = {"e2b-hookd --help": hookd_options, "e2b-hookctl help": hookctl_commands,
          "e2b-hookctl options": hookctl_options, "configuration.md": configuration_keys}


def render(page, hookd, hookctl):
    def fill(match):
        return match.group(1) + "\n" + MAKERS[match.group(2)](hookd, hookctl) + "; end\n"
    return re.sub(r"^(; from ([^\n]+)\n).*?^; end\n", fill, page, flags=re.MULTILINE | re.DOTALL)


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], ["--check"]):
        sys.exit(__doc__)
    hookd, hookctl = sys.argv[1:3]
    stale = []
    for path in sorted(HERE.glob("*.scd")):
        page = path.read_text()
        fresh = render(page, hookd, hookctl)
        if fresh == page:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(fresh)
    if stale and "--check" in sys.argv:
        sys.exit(f"not up to date: {', '.join(stale)}; docs/man/update.py HOOKD HOOKCTL mends it")


if __name__ == "__main__":
    main()
