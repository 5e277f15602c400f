"""Goal: [source] events, templates and teams keep what they name and nothing else; what they refuse is answered with 200,
counted per source, reason and template, and nowhere else; a reload changes them without a restart.
"""
import json

from harness import E2B_SOURCE, SOURCES, Case, event, execution, until

TEAM = "3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4"


class Filters(Case):
    def with_filter(self, extra="", **filters):
        return self.start(sources={"e2b": {**E2B_SOURCE, **filters}}, extra=extra)

    def outcomes(self, daemon, *bodies):
        return [daemon.post(body).outcome for body in bodies]

    def test_events_are_matched_by_type_or_kind(self):
        daemon = self.with_filter(events="killed, sandbox.lifecycle.p*, code_executed")
        answers = self.outcomes(daemon, event("killed"), event("paused"), event("created"), execution(),
                                event("sandbox.killed"), event("sandbox.lifecycle.migrated"))
        self.assertEqual(answers, ["stored", "stored", "filtered", "stored", "stored", "filtered"])
        self.home.wait_folded()
        kinds = {r["kind"] for r in self.home.query("SELECT kind FROM events")}
        self.assertEqual(kinds, {"killed", "paused", "code_executed"})

    def test_only_exclusions_mean_all_others(self):
        daemon = self.with_filter(events="!updated, !*.checkpointed")
        answers = self.outcomes(daemon, event("created"), event("updated"), event("checkpointed"), event("x.y"))
        self.assertEqual(answers, ["stored", "filtered", "filtered", "stored"])

    def test_an_exclusion_wins_over_what_is_named(self):
        daemon = self.with_filter(templates="prod-*, !prod-old")
        answers = self.outcomes(daemon, *(event(sandbox_template_id=t) for t in ("prod-new", "prod-old", "dev", "PROD-new")))
        self.assertEqual(answers, ["stored", "filtered", "filtered", "filtered"])

    def test_templates_are_matched_by_id_or_alias_whichever_the_event_and_the_filter_name(self):
        extra = "[template abc123]\nalias = my-agent\n[template other9]\nalias = other\n"
        for pattern in ("abc123", "my-agent", "my-*"):
            with self.subTest(pattern):
                self.fresh()
                daemon = self.with_filter(templates=pattern, extra=extra)
                templates = "abc123", "my-agent", "other9", "other"
                answers = self.outcomes(daemon, *(event(sandbox_template_id=t) for t in templates))
                self.assertEqual(answers, ["stored", "stored", "filtered", "filtered"])
                self.home.wait_folded()
                rows = self.home.query("SELECT DISTINCT template_id, template FROM events")
                self.assertEqual(rows, [{"template_id": "abc123", "template": "my-agent"}])
                self.stop(daemon)

    def test_an_absent_template_or_team_is_matched_by_the_star_and_by_exclusions_only(self):
        for pattern, outcome in (("*", "stored"), ("a*", "filtered"), ("!b", "stored"), ("?*", "filtered")):
            for key, field in (("templates", "sandbox_template_id"), ("teams", "sandbox_team_id")):
                with self.subTest(pattern=pattern, key=key):
                    self.fresh()
                    daemon = self.with_filter(**{key: pattern})
                    for absent in (None, "", "00000000-0000-0000-0000-000000000000"):
                        self.assert_outcome(daemon.post(event(**{field: absent})), outcome, repr(absent))
                    self.stop(daemon)

    def test_teams_are_matched_by_id(self):
        daemon = self.with_filter(teams=TEAM)
        answers = self.outcomes(daemon, event(), event(sandbox_team_id="11111111-1111-4111-8111-111111111111"))
        self.assertEqual(answers, ["stored", "filtered"])

    def test_a_filtered_event_is_counted_and_leaves_nothing_else(self):
        daemon = self.with_filter(templates="keep", events="!updated", teams=TEAM)
        for body in (event(sandbox_template_id="drop"), event(sandbox_template_id="drop"), event(sandbox_template_id="x"),
                     event("updated", sandbox_template_id="keep"),
                     event(sandbox_template_id="keep", sandbox_team_id="11111111-1111-4111-8111-111111111111")):
            self.assert_outcome(daemon.post(body), "filtered")
        self.assert_outcome(daemon.post(event(sandbox_template_id="keep")), "stored")
        query = """SELECT s.name, reason, template_id, n FROM filter_count
                   JOIN source s USING (source_key) LEFT JOIN template USING (template_key) ORDER BY reason, template_id"""
        rows = until(lambda: (r := self.home.query(query)) and sum(x["n"] for x in r) == 5 and r, "five to be counted")
        self.assertEqual([tuple(r.values()) for r in rows],
                         [("e2b", "events", "keep", 1), ("e2b", "teams", "keep", 1), ("e2b", "templates", "drop", 2),
                          ("e2b", "templates", "x", 1)])
        status = {r["subject"]: r["note"] for r in json.loads(self.ctl("status", "--format", "json", code=None))
                  if r["item"] == "filtered"}
        self.assertIn("for their type, whatever the template", status["e2b by events, template keep"])
        self.assertIn("for their template", status["e2b by templates, template drop"])
        self.home.wait_folded()
        self.assertEqual((self.count("events"), self.count("sandboxes"), self.count("quarantine"), self.count("rejections")),
                         (1, 1, 0, 0))

    def test_an_unsigned_delivery_is_refused_before_any_filter(self):
        daemon = self.with_filter(events="killed")
        self.assertEqual(daemon.post(event("created"), "x" * 39).status, 401)

    def test_a_self_test_passes_every_filter(self):
        daemon = self.with_filter(events="killed", templates="keep", teams="none")
        self.assert_outcome(daemon.post(event("e2b-hookd.test", sandbox_id=None)), "stored")
        self.assert_outcome(daemon.post(event("created")), "filtered")

    def test_filters_are_of_their_source(self):
        sources = {**SOURCES, "e2b": {**E2B_SOURCE, "events": "killed"}}
        daemon = self.start(sources=sources)
        self.assert_outcome(daemon.post(event("created")), "filtered")
        self.assert_outcome(daemon.post_executor(event("created")), "stored")

    def test_a_reload_changes_them(self):
        daemon = self.with_filter(events="killed")
        self.assert_outcome(daemon.post(event("created")), "filtered")
        self.home.configure(sources={"e2b": {**E2B_SOURCE, "events": "created"}})
        daemon.reload()
        self.assertEqual(self.outcomes(daemon, event("created"), event("killed")), ["stored", "filtered"])
