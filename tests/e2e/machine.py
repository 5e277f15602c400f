"""A real systemd to test in, and the package to install there.

The machine is systemd-nspawn on an overlay of this host's own root: nothing is downloaded, and what it writes is gone with
it. It has a network of its own, so that fixed ports clash with nothing. Only processes started here are ended.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

from harness import ROOT, until

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = ("systemd-nspawn", "nsenter", "dpkg-buildpackage", "dh", "scdoc", "fsfreeze", "mkfs.ext4")


def missing():
    """Why there can be no machine here; None if there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent:
        return f"needs {', '.join(absent)}"
    if not os.access("/lib/systemd/systemd", os.X_OK):
        return "needs systemd"
    return None


def run(*command, code=0, **options):
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600, **options)
    assert code is None or ran.returncode == code, f"{command}: {ran.returncode}\n{ran.stdout[-4000:]}{ran.stderr[-4000:]}"
    return ran


def copy_sources(to):
    """What is under version control or would be, as it is now."""
    names = run("git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z").stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def build_package(directory):
    """The Debian package of this tree, and its .changes."""
    source = directory / "source"
    copy_sources(source)
    run("dpkg-buildpackage", "-us", "-uc", "-b", cwd=source,
        env={**os.environ, "DEB_BUILD_OPTIONS": f"nocheck parallel={os.cpu_count()}"})
    return next(directory.glob("e2b-hookd_*.deb")), next(directory.glob("*.changes"))


class Machine:
    def __init__(self, binds=()):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="hookd-machine-", dir="/dev/shm"))
        self.root, self.nspawn, self.init = self.base / "root", None, None
        for name in ("root", "upper", "work"):
            (self.base / name).mkdir()
        run("mount", "-t", "overlay", "overlay", "-o",
            f"lowerdir=/,upperdir={self.base}/upper,workdir={self.base}/work", str(self.root))
        # This host may forbid packages to start services, as images of containers do; and indexing manuals takes seconds.
        for name in ("usr/sbin/policy-rc.d", "var/lib/man-db/auto-update"):
            (self.root / name).unlink(missing_ok=True)
        self.binds = [f"--bind={outside}:{inside}" for outside, inside in binds]
        for _, inside in binds:
            (self.root / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)
        shutil.copytree(HERE, self.root / "root/e2e", ignore=shutil.ignore_patterns("__pycache__"))

    def boot(self):
        self.log = open(self.base / "console", "wb")
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "-D", str(self.root), "--register=no", "--keep-unit", "--private-network",
             "--console=pipe", *self.binds, "/lib/systemd/systemd", "--unit=basic.target"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.init = until(self.find_init, "the machine's first process", 30)
        until(lambda: self("systemctl", "is-system-running", code=None).stdout.strip() in ("running", "degraded"),
              "the machine to boot", 60)

    def find_init(self):
        """The child that is number 1 in there; until it is, another stands in its place."""
        assert self.nspawn.poll() is None, (self.base / "console").read_text(errors="replace")
        for child in pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split():
            status = pathlib.Path(f"/proc/{child}/status").read_text()
            if re.search(r"^Name:\s+systemd$", status, re.MULTILINE) and re.search(r"^NSpid:.*\s1$", status, re.MULTILINE):
                return child
        return None

    def __call__(self, *command, code=0):
        """Runs a command in the machine."""
        return run("nsenter", "-t", self.init, "-m", "-u", "-i", "-n", "-p", "--", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8",
                   "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", *map(str, command), code=code)

    def write(self, path, text, mode=0o644, group=None):
        """A file in the machine, through its own eyes: it may lie on a mount."""
        self("install", "-m", f"{mode:o}", *(["-g", group] if group else []), "/dev/null", path)
        self("sh", "-c", 'printf %s "$1" >"$2"', "sh", text, path)

    def show(self, unit, field):
        return self("systemctl", "show", "-P", field, unit).stdout.strip()

    def journal(self, unit, since=None):
        return self("journalctl", "-q", "-o", "cat", "-u", unit, *(["--after-cursor", since] if since else [])).stdout

    def cursor(self):
        return self("journalctl", "-q", "-n", "0", "--show-cursor").stdout.split("cursor: ")[-1].strip()

    def traffic(self, *arguments):
        return json.loads(self("python3", "-B", "/root/e2e/traffic.py", *arguments).stdout)

    def load(self, address, secret):
        """Deliveries without a pause beside what the test does; call the result to end them and hear what became of them. To
        be called in any case, and more than once if need be."""
        stop, said = "/run/no-more-traffic", []
        self("rm", "-f", stop)
        thread = threading.Thread(target=lambda: said.append(self.traffic(address, secret, "--until", stop)))
        thread.start()

        def end():
            self("touch", stop)
            thread.join(60)
            return said[0] if said else None
        return end

    def close(self):
        if self.nspawn and self.nspawn.poll() is None:
            self("systemctl", "poweroff", "--no-block", code=None)
            try:
                self.nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self.nspawn.terminate()
                self.nspawn.wait(30)
        run("umount", str(self.root), code=None)
        shutil.rmtree(self.base, ignore_errors=True)
