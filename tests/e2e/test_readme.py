"""Goal: what README.md shows works as it stands there.

A fenced block whose preceding line is `<!-- tested: NAME -->` is run in an empty folder, by python3 if it is marked
```python and by sh -eu if it is marked ```sh, against a daemon with a source for executors. It finds in its environment:

    HOOKD_URL          where executors report, e.g. http://127.0.0.1:8787/webhooks/executors
    HOOKD_SECRET_FILE  a file with the secret of that source (hmac-sha256, header x-signature-256)
    HOOKD_CONFIG       the daemon's configuration file, and e2b-hookctl in PATH

It must end with 0 within 30 s. Blocks whose name begins with `executor` must each leave one more stored execution.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from harness import HOOKCTL, ROOT, Case

README = ROOT / "README.md"
NEEDED = {"executor-python", "executor-shell"}


def blocks():
    pattern = r"<!-- tested: ([\w-]+) -->\s*\n```(\w+)\n(.*?)^```"
    return {name: (language, text) for name, language, text in
            re.findall(pattern, README.read_text(), re.DOTALL | re.MULTILINE)}


@unittest.skipUnless(README.exists(), "there is no README.md yet")
class Readme(Case):
    def run_block(self, language, text):
        command = {"python": [sys.executable, "-"], "sh": ["sh", "-eu", "-s"]}[language]
        environment = {**os.environ, "HOOKD_URL": f"http://{self.daemon.address}/webhooks/executors",
                       "HOOKD_SECRET_FILE": str(self.home.path / "executors.secret"), "HOOKD_CONFIG": str(self.home.config),
                       "PATH": f"{pathlib.Path(HOOKCTL).parent}:{os.environ['PATH']}"}
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run(command, input=text, text=True, capture_output=True, timeout=30, cwd=folder,
                                  env=environment)

    def test_shows_how_executors_report_in_python_and_shell(self):
        self.assertLessEqual(NEEDED, set(blocks()), "README.md lacks blocks marked <!-- tested: NAME -->")

    def test_every_marked_block_works(self):
        self.daemon = self.start()
        for name, (language, text) in blocks().items():
            with self.subTest(name):
                before = self.count("executions")
                run = self.run_block(language, text)
                self.assertEqual(run.returncode, 0, f"{run.stdout}\n{run.stderr}")
                self.home.wait_folded()
                if name.startswith("executor"):
                    self.assertEqual(self.count("executions"), before + 1, f"{run.stdout}\n{run.stderr}")
        self.assertEqual((self.count("quarantine"), self.count("rejections")), (0, 0))
