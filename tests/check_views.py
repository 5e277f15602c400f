#!/usr/bin/env python3
"""Holds docs/views.md to the schema: the same views, the same columns, in the same order."""
import pathlib
import re
import sqlite3
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PRIVATE = {'unfolded_event'}  # half of events: what the link will say, read from the body


def of_page():
    views, name = {}, None
    for line in (ROOT / 'docs/views.md').read_text(encoding='utf-8').splitlines():
        if line.startswith('## '):
            name = line[3:].strip()
            views[name] = []
        cell = re.match(r'\| `(\w+)` \|', line)
        if cell and name:
            views[name].append(cell.group(1))
    views['failed_executions'] = views['executions']
    return views


def of_schema():
    db = sqlite3.connect(':memory:')
    for path in sorted((ROOT / 'schema/sqlite').glob('*.sql')):
        db.executescript(path.read_text(encoding='utf-8'))
    names = [name for name, in db.execute("SELECT name FROM sqlite_schema WHERE type = 'view'") if name not in PRIVATE]
    return {name: [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')] for name in names}


def main():
    page, schema = of_page(), of_schema()
    failed = 0
    for name in sorted(page.keys() | schema.keys()):
        if page.get(name) != schema.get(name):
            print(f'{name}: docs/views.md has {page.get(name)}, the schema {schema.get(name)}')
            failed += 1
    print(f'{len(schema) - failed} passed, {failed} failed')
    return 1 if failed else 0


sys.exit(main())
