"""Goal: the soak (tests/soak.py) itself works, and finds nothing in the seconds that it gets here."""
import subprocess
import sys
import unittest

from harness import LONG, ROOT, plain_only


@unittest.skipUnless(LONG, "long form only: 20 s; tests/soak.py --minutes 30 is the real one")
class Soak(unittest.TestCase):
    @plain_only("its bounds are about memory and time")
    def test_twenty_seconds_of_everything_at_once(self):
        run = subprocess.run([sys.executable, str(ROOT / "tests/soak.py"), "--seconds", "20"], capture_output=True, text=True,
                             timeout=200)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("passed: 0 problems", run.stdout)
