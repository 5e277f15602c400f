"""The queries of docs/grafana, as Grafana sends them: its variables are put into the text before SQLite sees it."""
import json

from harness import ROOT

PATH = ROOT / "docs/grafana/dashboard.json"
EVERY = "'__all'"  # what the variable `template` stands for when All is chosen
TEMPLATES = "('__all' IN (${template:sqlstring}) OR template IN (${template:sqlstring}))"


def read():
    return json.loads(PATH.read_text(encoding="utf-8"))


def panels():
    """Title and statement of each query."""
    return [(panel["title"], target["rawQueryText"]) for panel in read()["panels"] for target in panel["targets"]]


def fill(statement, begin, end, templates=EVERY):
    """A statement for a range in unix seconds and the templates, quoted as by the format `sqlstring`."""
    statement = statement.replace("$__from", str(begin * 1000)).replace("$__to", str(end * 1000))
    return statement.replace("${template:sqlstring}", templates)
