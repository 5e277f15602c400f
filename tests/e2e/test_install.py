"""Goal: what `meson install` lays out is complete, points to where it lies, and says what the programs say."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import HOOKCTL, HOOKD, ROOT, SANITIZED

BUILD = pathlib.Path(HOOKD).resolve().parents[1]
UNITS = ("e2b-hookd.service", "e2b-hookd@.service", "e2b-hookd.socket", "e2b-hookd@.socket", "e2b-hookd-backup.service",
         "e2b-hookd-backup.timer")
PAGES = {"e2b-hookd": 8, "e2b-hookctl": 1, "e2b-hookd.ini": 5}


def run(*command, code=0, **options):
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False, **options)
    assert code is None or ran.returncode == code, f"{command}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="hookd-install-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def configure(self, *options):
        """A build folder for this layout; (what goes where, the folder). Nothing is compiled."""
        build = self.directory / "build"
        run("meson", "setup", str(build), str(ROOT), "-Dtests=false", *options)
        plan = json.loads(run("meson", "introspect", "--installed", str(build)).stdout)
        return {pathlib.Path(to): pathlib.Path(source) for source, to in plan.items()}, build


@unittest.skipUnless(shutil.which("meson"), "needs meson")
class TheLayout(Case):
    @unittest.skipIf(SANITIZED, "the same files")
    def test_destdir_takes_the_whole_installation(self):
        run("meson", "install", "-C", str(BUILD), "--no-rebuild", env={**os.environ, "DESTDIR": str(self.directory / "to")})
        installed = {path.relative_to(self.directory / "to") for path in (self.directory / "to").rglob("*")}
        plan = json.loads(run("meson", "introspect", "--installed", str(BUILD)).stdout)
        self.assertGreater(len(plan), 15)
        self.assertLessEqual({pathlib.Path(to).relative_to("/") for to in plan.values()}, installed)
        program = next(self.directory / "to" / path for path in installed if path.parts[-2:] == ("sbin", "e2b-hookd"))
        self.assertEqual(run(str(program), "--version").stdout, run(HOOKD, "--version").stdout)

    def test_everything_lies_below_the_prefix_and_units_name_it(self):
        plan, _ = self.configure("--prefix=/opt/hook", "--sysconfdir=etc", "--localstatedir=var", "-Dsystemd=enabled")
        self.assertEqual([to for to in plan if not to.is_relative_to("/opt/hook")], [])
        units = {to.name: source.read_text() for to, source in plan.items() if to.parent.name == "system"}
        self.assertEqual(sorted(units), sorted(UNITS))
        self.assertIn("\nExecStart=/opt/hook/sbin/e2b-hookd -c /opt/hook/etc/e2b-hookd/config.ini\n", units["e2b-hookd.service"])
        self.assertIn("\nExecStart=/opt/hook/sbin/e2b-hookd -c /opt/hook/etc/e2b-hookd/%i.ini\n", units["e2b-hookd@.service"])
        self.assertIn("\nReadWritePaths=/opt/hook/var/backups/e2b-hookd\n", units["e2b-hookd-backup.service"])
        for name, text in units.items():
            self.assertNotRegex(text, r"@[A-Z]+@", name)

    def test_the_default_is_a_daemon_of_the_system(self):
        plan, build = self.configure("-Dsystemd=enabled")
        units = {to.name: source.read_text() for to, source in plan.items() if to.parent.name == "system"}
        self.assertIn("\nExecStart=/usr/local/sbin/e2b-hookd -c /etc/e2b-hookd/config.ini\n", units["e2b-hookd.service"])
        commands = (build / "compile_commands.json").read_text()
        self.assertEqual(set(re.findall(r"HOOKD_SYSCONFDIR=([^']+)'", json.loads(commands)[0]["command"])), {'"/etc"'})

    def test_every_text_for_operators_is_installed(self):
        plan, _ = self.configure()
        installed = {source.resolve() for source in plan.values()}
        self.assertEqual({path for path in (ROOT / "docs").glob("*.md")} - installed, set())

    def test_it_configures_without_scdoc_and_systemd(self):
        plan, _ = self.configure("-Dsystemd=disabled", "-Dman=disabled")
        self.assertEqual([to for to in plan if "systemd" in to.parts or "man" in to.parts], [])
        self.assertIn("e2b-hookctl", {to.name for to in plan})


@unittest.skipUnless(shutil.which("systemd-analyze"), "needs systemd-analyze")
class TheUnits(Case):
    def setUp(self):
        super().setUp()
        plan, _ = self.configure("--prefix=/usr", "-Dsystemd=enabled")
        self.units = self.directory / "units"
        self.units.mkdir()
        for to, source in plan.items():
            if to.parent.name == "system":
                # The programs of this build stand in for those that would be installed.
                text = source.read_text().replace("/usr/sbin/e2b-hookd", HOOKD)
                (self.units / to.name).write_text(text.replace("/usr/libexec/e2b-hookd/backup", "/bin/true"))

    def verify(self, name):
        ran = run("systemd-analyze", "verify", "--man=no", str(self.units / name), code=None)
        return ran.stdout + ran.stderr

    def test_systemd_has_nothing_to_say_about_them(self):
        for name in UNITS:
            with self.subTest(name):
                self.assertEqual(self.verify(name), "")
        broken = self.units / "e2b-hookd.service"
        broken.write_text(broken.read_text().replace("WatchdogSec=", "WatchdogSecs="))
        self.assertIn("WatchdogSecs", self.verify("e2b-hookd.service"), "what this test would see")

    def test_services_are_exposed_to_1_2_at_most(self):
        for name in ("e2b-hookd.service", "e2b-hookd@.service", "e2b-hookd-backup.service"):
            with self.subTest(name):
                run("systemd-analyze", "security", "--offline=yes", "--threshold=12", str(self.units / name))

    def test_a_restart_is_not_tried_where_it_mends_nothing(self):
        codes = {int(code) for code in re.search(r"RestartPreventExitStatus=(.*)", (self.units / "e2b-hookd.service").read_text())
                 .group(1).split()}
        (self.directory / "bad.ini").write_text("[nonsense]\n")
        self.assertIn(run(HOOKD, "-c", str(self.directory / "bad.ini"), code=None).returncode, codes)
        self.assertIn(run(HOOKD, "--nonsense", code=None).returncode, codes)
        (self.directory / "secret").write_text("a-secret-of-thirty-two-characters\n")
        (self.directory / "events.db").write_text("not a database at all, whatever its name may say" * 100)
        (self.directory / "good.ini").write_text(
            f"[server]\nlisten = 127.0.0.1:0\n[admin]\nlisten =\n[store]\npath = {self.directory}/events.db\n"
            f"[source e2b]\npath = /e2b\nsecret_file = {self.directory}/secret\n")
        self.assertIn(run(HOOKD, "-c", str(self.directory / "good.ini"), code=None).returncode, codes)


class TheManual(Case):
    def test_pages_say_what_the_programs_say(self):
        run(str(ROOT / "docs/man/update.py"), HOOKD, HOOKCTL, "--check")

    def test_a_stale_page_is_told(self):
        shutil.copytree(ROOT / "docs", self.directory / "docs")
        page = self.directory / "docs/man/e2b-hookctl.1.scd"
        page.write_text(page.read_text().replace("--since", "--sinse", 1))
        ran = run(str(self.directory / "docs/man/update.py"), HOOKD, HOOKCTL, "--check", code=None)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("e2b-hookctl.1.scd", ran.stderr)

    def test_every_exit_code_of_the_daemon_is_explained(self):
        page = (ROOT / "docs/man/e2b-hookd.8.scd").read_text().split("# EXIT STATUS")[1].split("\n# ")[0]
        explained = set(re.findall(r"^\*(\d+)\*$", page, re.MULTILINE))
        told = (ROOT / "include/exit_code.h").read_text().split("#pragma once")[0]
        self.assertEqual(explained, {"0", "2"} | set(re.findall(r"\b(6[0-9]|7[0-8])\b", told)))

    @unittest.skipUnless(shutil.which("scdoc") and shutil.which("mandoc"), "needs scdoc and mandoc")
    def test_pages_are_wellformed(self):
        for name, section in PAGES.items():
            with self.subTest(name):
                with open(ROOT / f"docs/man/{name}.{section}.scd", encoding="utf-8") as source:
                    page = subprocess.run(["scdoc"], stdin=source, capture_output=True, text=True, check=True).stdout
                path = self.directory / f"{name}.{section}"
                path.write_text(page)
                run("mandoc", "-T", "lint", "-W", "error", str(path))


@unittest.skipUnless(os.path.exists("/usr/share/bash-completion/bash_completion"), "needs bash-completion")
class TheCompletion(Case):
    def complete(self, line, program=HOOKCTL):
        """What bash offers at the end of the line."""
        script = """
            . /usr/share/bash-completion/bash_completion
            . "$1"
            COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9
            read -ra COMP_WORDS <<<"$2"
            [[ $2 != *' ' ]] || COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            cd "$3"
            _e2b_hook "$4" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
            printf '%s\\n' "${COMPREPLY[@]}"
        """
        ran = run("bash", "--norc", "-c", script, "bash", str(ROOT / "docs/completion/e2b-hookctl"), line, str(self.directory),
                  program)
        return set(ran.stdout.split())

    def test_commands_are_those_of_the_help(self):
        told = set(re.findall(r"^  ([a-z][a-z-]+) {2,}", run(HOOKCTL, "help").stdout, re.MULTILINE))
        self.assertGreater(len(told), 15)
        self.assertEqual(self.complete("e2b-hookctl "), told)
        self.assertEqual(self.complete("e2b-hookctl help "), told)
        self.assertEqual(self.complete("e2b-hookctl re"), {name for name in told if name.startswith("re")})

    def test_options_are_those_of_the_command(self):
        for command in ("costs", "send", "status"):
            with self.subTest(command):
                told = set(re.findall(r"^  .*?(--[a-z-]+)", run(HOOKCTL, "help", command).stdout, re.MULTILINE))
                self.assertEqual(self.complete(f"e2b-hookctl {command} --"), told)
        self.assertEqual(self.complete("e2b-hookctl costs --si"), {"--since"})
        self.assertEqual(self.complete("e2b-hookd --", HOOKD), {"--config", "--check", "--version", "--help"})

    def test_values_are_offered_where_they_are_known(self):
        self.assertEqual(self.complete("e2b-hookctl events --format "), {"table", "csv", "json"})
        self.assertEqual(self.complete("e2b-hookctl costs --by t"), {"template", "team"})
        self.assertEqual(self.complete("e2b-hookctl costs --limit "), set())
        (self.directory / "one.ini").touch()
        self.assertEqual(self.complete("e2b-hookctl -c o"), {"one.ini"})
        self.assertEqual(self.complete("e2b-hookctl restore o"), {"one.ini"})
        self.assertIn("costs", self.complete("e2b-hookctl -c one.ini "))
