"""Goal: what cannot work does not start, and says in one clear line what is wrong, where, and what to do, with the exit code
that a service manager goes by (sysexits: 78 configuration, 65 foreign, newer or corrupt store, 69 port taken, 73 no such
directory, 75 another daemon has the store, 77 no permission, 2 command line). Nothing existing is harmed by trying.
"""
import contextlib
import os
import re
import socket
import sqlite3
import subprocess

from harness import E2B_SOURCE, HOOKD, ROOT, SECRET, SOURCES, Case, event


class Refusals(Case):
    def refused(self, code, *words, arguments=()):
        """The daemon ends by itself with this code; its last error line has all the words."""
        daemon = self.launch(*arguments)
        self.assertEqual(daemon.wait(20), code, daemon.log)
        self.died_on_purpose(daemon)
        errors = [line for line in daemon.lines if "error" in line]
        self.assertTrue(errors, daemon.log)
        self.assertTrue(any(all(str(w) in line for w in words) for line in errors), f"{words} in: {daemon.log}")
        self.assertEqual(daemon.addresses, [], "it listened before it knew")
        return daemon

    def test_a_configuration_with_mistakes_is_refused_with_all_of_them(self):
        self.home.configure()
        text = self.home.config.read_text()
        text = text.replace("retention = 0", "retnetion = 0", 1).replace("[admin]", "max_connections = many\n[admin]")
        self.home.config.write_text(text + "[surce x]\n")
        lines = text.splitlines()
        daemon = self.refused(78, self.home.config)
        for word, hint in (("retnetion", "retention"), ("max_connections", ""), ("surce", "source")):
            number = next(i for i, line in enumerate(self.home.config.read_text().splitlines(), 1) if word in line)
            found = [line for line in daemon.lines if f"config.ini:{number}:" in line or f"line={number}" in line]
            self.assertTrue(found, f"no line for {word} (line {number}) in:\n{daemon.log}")
            self.assertIn(hint, found[0])
        self.assertGreater(len(lines), 5)

    def test_check_prints_every_problem_and_starts_nothing(self):
        self.home.configure()
        run = subprocess.run([HOOKD, "-c", str(self.home.config), "--check"], capture_output=True, text=True, timeout=20)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertFalse(self.home.db.exists())
        self.home.config.write_text(self.home.config.read_text() + "[log]\nlevel = loud\nformat = xml\n")
        run = subprocess.run([HOOKD, "-c", str(self.home.config), "--check"], capture_output=True, text=True, timeout=20)
        self.assertEqual(run.returncode, 78)
        problems = [line for line in run.stderr.splitlines() if ": error: " in line]
        self.assertEqual(len(problems), 2, run.stderr)
        for line in problems:
            self.assertRegex(line, rf"^{self.home.config}:\d+: error: ")

    def test_a_missing_configuration_is_refused(self):
        self.home.configure()
        self.home.config = self.home.path / "none.ini"
        run = subprocess.run([HOOKD, "-c", str(self.home.config)], capture_output=True, text=True, timeout=20)
        self.assertEqual(run.returncode, 78)
        self.assertIn(str(self.home.config), run.stderr)

    def test_what_the_journal_gets_has_its_priority_from_the_first_line_on(self):
        """`journalctl -p err` is where one looks when it does not start."""
        self.home.configure()
        self.home.config.write_text(self.home.config.read_text() + "[log]\nlevel = loud\n")
        with (self.home.path / "journal").open("w+b") as journal:
            status = os.fstat(journal.fileno())
            run = subprocess.run([HOOKD, "-c", str(self.home.config)], stderr=journal, stdin=subprocess.DEVNULL, timeout=20,
                                 env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, check=False)
            journal.seek(0)
            lines = journal.read().decode().splitlines()
        self.assertEqual(run.returncode, 78)
        self.assertTrue(lines)
        for line in lines:
            self.assertRegex(line, r"^<3>error ", "the priority, and no time: the journal has its own")

    def test_the_command_line_is_checked(self):
        for arguments in (["--nonsense"], ["-c"], ["extra"], ["--chec"]):
            run = subprocess.run([HOOKD, *arguments], capture_output=True, text=True, timeout=20)
            self.assertEqual(run.returncode, 2, arguments)
            self.assertIn("--help", run.stderr)
        for arguments in (["--help"], ["--version"]):
            run = subprocess.run([HOOKD, *arguments], capture_output=True, text=True, timeout=20)
            self.assertEqual((run.returncode, run.stderr), (0, ""), arguments)
            self.assertIn("e2b-hookd", run.stdout)

    def test_no_secret_no_start(self):
        path = self.home.path / "e2b.secret"
        spoil = {
            "missing": path.unlink,
            "empty": lambda: path.write_text(""),
            "blank lines only": lambda: path.write_text("\n  \n\t\n"),
            "a directory": lambda: (path.unlink(), path.mkdir()),
        }
        for name, change in spoil.items():
            with self.subTest(name):
                self.fresh()
                self.home.configure()
                change()
                self.refused(78, path)
                if path.is_dir():
                    path.rmdir()
        for keys in ({}, {"secret_env": "HOOKD_E2E_NOT_SET"}, {"secret_credential": "none"}):
            with self.subTest(keys):
                source = {k: v for k, v in E2B_SOURCE.items() if k != "secrets"}
                self.home.configure(sources={"e2b": {**source, **keys}})
                self.refused(78, "secret")

    def test_a_secret_may_come_through_the_environment_or_as_a_credential(self):
        path = self.home.secret_file("other", [SECRET])
        source = {k: v for k, v in E2B_SOURCE.items() if k != "secrets"}
        for keys, environment in (({"secret_env": "HOOKD_E2E_SECRET"}, {"HOOKD_E2E_SECRET": str(path)}),
                                  ({"secret_credential": "other.secret"}, {"CREDENTIALS_DIRECTORY": str(self.home.path)})):
            with self.subTest(keys):
                self.home.configure(sources={"e2b": {**source, **keys}})
                daemon = self.start(environment=environment)
                self.assert_outcome(daemon.post(event()), "stored")
                self.stop(daemon)

    def test_a_port_that_is_taken_is_named(self):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
            port = other.getsockname()[1]
            self.home.configure(server={"listen": f"127.0.0.1:{port}"})
            self.refused(69, f"127.0.0.1:{port}")

    def test_an_address_of_another_machine_is_refused(self):
        self.home.configure(server={"listen": "203.0.113.1:8787"})
        self.refused(78, "203.0.113.1:8787")

    def test_a_unix_socket_of_a_living_process_is_not_taken_over(self):
        path = self.home.path / "hook.sock"
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as other:
            other.bind(str(path))
            other.listen()
            self.home.configure(server={"listen": f"unix:{path}"})
            self.refused(69, path)
            self.assertTrue(path.is_socket())

    def test_a_file_in_the_place_of_the_socket_is_not_removed(self):
        path = self.home.write("hook.sock", "precious")
        self.home.configure(server={"listen": f"unix:{path}"})
        self.refused(78, path)
        self.assertEqual(path.read_text(), "precious")

    def test_a_second_daemon_on_the_same_store_is_refused_and_the_first_goes_on(self):
        daemon = self.start()
        self.refused(75, self.home.db)
        self.assert_outcome(daemon.post(event()), "stored")

    def test_a_database_of_another_application_is_left_alone(self):
        with contextlib.closing(sqlite3.connect(self.home.db)) as db:
            db.execute("CREATE TABLE theirs (x)")
            db.execute("PRAGMA application_id = 4711")
            db.commit()
        before = self.home.db.read_bytes()
        self.home.configure()
        self.refused(65, self.home.db)
        self.assertEqual(self.home.db.read_bytes(), before)
        with contextlib.closing(sqlite3.connect(self.home.db)) as db:
            db.execute("PRAGMA application_id = 0")
            db.commit()
        self.refused(65, self.home.db)
        self.assertEqual(self.home.query("SELECT name FROM sqlite_master"), [{"name": "theirs"}])

    def test_a_newer_schema_is_left_alone(self):
        self.stop(self.start())
        with contextlib.closing(sqlite3.connect(self.home.db)) as db:
            db.execute("PRAGMA user_version = 1000")
            db.commit()
        before = self.home.db.read_bytes()
        self.refused(65, self.home.db)
        self.assertEqual(self.home.db.read_bytes(), before)

    def test_a_file_that_is_no_database_is_left_alone(self):
        self.home.db.write_bytes(b"precious text, and no database at all\n" * 200)
        before = self.home.db.read_bytes()
        self.home.configure()
        self.refused(65, self.home.db)
        self.assertEqual(self.home.db.read_bytes(), before)

    def test_a_missing_directory_is_named(self):
        path = self.home.path / "none" / "events.db"
        self.home.configure(store={"path": path})
        self.refused(73, path.parent)
        self.assertFalse(path.parent.exists())

    def test_a_file_in_the_place_of_the_directory_is_named(self):
        path = self.home.write("file", "x") / "events.db"
        self.home.configure(store={"path": path})
        self.refused(73, path.parent)

    def test_a_directory_that_it_may_not_write_is_named(self):
        self.home.configure(store={"path": "/sys/e2b-hookd-e2e.db"})
        self.refused(77, "/sys")


class FirstStart(Case):
    def test_makes_the_store_for_itself_and_its_group_only(self):
        mask = os.umask(0)
        self.addCleanup(os.umask, mask)
        self.start()
        self.assertEqual(self.home.db.stat().st_mode & 0o007, 0)
        newest = max(int(path.name[:4]) for path in (ROOT / "schema/sqlite").glob("[0-9]*.sql"))
        self.assertEqual(self.home.query("SELECT version FROM schema_info"), [{"version": newest}])

    def test_an_empty_file_becomes_a_store(self):
        self.home.db.touch()
        self.assert_outcome(self.start().post(event()), "stored")

    def test_says_what_it_listens_on_and_where_it_stores(self):
        daemon = self.start(sources=SOURCES)
        self.assertRegex(daemon.addresses[0], r"^127\.0\.0\.1:\d+$")
        daemon.wait_log(re.escape(str(self.home.db)))

    def test_needs_no_home_and_no_terminal(self):
        self.home.configure()
        environment = dict.fromkeys(("HOME", "TERM", "LANG", "LC_ALL", "TZ"), "")
        self.assert_outcome(self.start(environment=environment).post(event()), "stored")

    def test_a_locale_with_a_decimal_comma_changes_no_number(self):
        self.home.configure(extra="[pricing]\nvcpu_second_usd = 0.5\ngib_second_usd = 0.25\n")
        daemon = self.start(environment={"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"})
        report = {"started_at": "2026-11-20T09:00:00Z", "execution_time": 1.5, "vcpu_count": 2, "memory_mb": 1024}
        self.assert_outcome(daemon.post(event("killed", {"execution": report}, timestamp="2026-11-20T09:00:02Z")), "stored")
        self.home.wait_folded()
        self.assertEqual(self.home.query("SELECT cost_nanousd FROM runs"), [{"cost_nanousd": 1_875_000_000}])
