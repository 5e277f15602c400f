#!/usr/bin/env python3
"""Writes the SQL migrations as C: one { version, name, text } row per file, in the order of their numbers."""
import os
import sys


def literal(text):
    out = []
    for line in text.splitlines(keepends=True):
        line = line.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n').replace('?', '\\?')
        out.append('\t"' + line + '"')
    return '\n'.join(out)


def main():
    output, inputs = sys.argv[1], sorted(sys.argv[2:], key=os.path.basename)
    there = {name for name in os.listdir(os.path.dirname(inputs[0])) if name.endswith('.sql')}
    for name in sorted(there - {os.path.basename(path) for path in inputs}):
        sys.exit(f'{name}: not named in schema/meson.build')
    rows = []
    for number, path in enumerate(inputs, 1):
        name = os.path.basename(path)
        if int(name[:4]) != number:
            sys.exit(f'{path}: expected number {number:04d}')
        with open(path, encoding='utf-8') as f:
            rows.append(f'{{ {number}, "{name}",\n{literal(f.read())} }},\n')
    with open(output, 'w', encoding='utf-8') as f:
        f.write(''.join(rows))


main()
