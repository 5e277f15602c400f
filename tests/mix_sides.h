/* For test_mix.c: a store with all that works on it, what its ledger says, and what was done to it
 * last.
 */
#pragma once

#include "mix_events.h"

#include "alert.h"
#include "retention.h"

#define MIX_NOTES 48 /* the last of them are told */
#define MIX_STEPS_MAX 100000

struct mix_side {
	struct world *world;
	struct alert *alert;
	struct rebuild *rebuild;
	struct retention *retention;
	int64_t pruned_events, pruned_sandboxes; /* by processes that have ended */
};

static void mix_configure(struct mix_side *side, const struct config *config)
{
	projector_set_config(side->world->p, config);
	alert_set_config(side->alert, config);
	retention_set_config(side->retention, config);
}

static void mix_start(struct mix_side *side, const struct config *config)
{
	struct world *w = side->world;
	open_store(w);
	assert_int_equal(projector_new(w->s, &w->p), 0);
	assert_int_equal(alert_new(w->s, &side->alert), 0);
	assert_int_equal(rebuild_new(w->s, w->p, &side->rebuild), 0);
	assert_int_equal(retention_new(w->s, &side->retention), 0);
	mix_configure(side, config);
	projector_set_alert(w->p, side->alert);
}

static void mix_stop(struct mix_side *side)
{
	struct retention_progress pruned;
	retention_progress(side->retention, &pruned);
	side->pruned_events += pruned.pruned_events;
	side->pruned_sandboxes += pruned.pruned_sandboxes;
	rebuild_free(side->rebuild);
	retention_free(side->retention);
	projector_set_alert(side->world->p, NULL);
	alert_free(side->alert);
	close_store(side->world);
}

static void mix_side_init(struct mix_side *side, const struct config *config)
{
	void *world;
	(void)begin_world(&world);
	*side = (struct mix_side) { .world = world };
	mix_start(side, config);
}

static void mix_side_finish(struct mix_side *side)
{
	void *world = side->world;
	if (!world)
		return;
	mix_stop(side);
	(void)end_world(&world);
}

/* To the end -------------------------------------------------------------------- */

static void mix_fold_all(struct mix_side *side)
{
	struct storage_position at;
	int n = 0;
	do {
		(void)fold_all(side->world);
		assert_int_equal(storage_position(side->world->s, &at), 0);
		assert_true(++n < MIX_STEPS_MAX);
	} while (at.folded_seq < at.stored_seq);
	assert_false(projector_is_amid(side->world->p));
}

static void mix_finish_rebuild(struct mix_side *side)
{
	for (int n = 0; rebuild_has_work(side->rebuild); n++) {
		assert_true(n < MIX_STEPS_MAX);
		assert_int_equal(rebuild_step(side->rebuild, 1000000), 0);
	}
}

static void mix_rebuild(struct mix_side *side, int64_t now_ms)
{
	struct rebuild_progress progress;
	mix_finish_rebuild(side);
	assert_int_equal(rebuild_request(side->rebuild), 0);
	mix_finish_rebuild(side);
	rebuild_progress(side->rebuild, &progress);
	assert_int_equal(progress.error, 0);
	assert_int_equal(projector_tick(side->world->p, now_ms), 0);
}

/* Folds an event that was skipped, as requeue does: with a projector of its own. */
static void mix_fold_skipped(struct mix_side *side, const struct config *config, int64_t seq)
{
	struct projector *p = NULL;
	struct storage *s = side->world->s;
	assert_int_equal(projector_new(s, &p), 0);
	projector_set_config(p, config);
	assert_int_equal(storage_begin(s, true), 0);
	assert_int_equal(projector_fold_skipped(p, seq), 0);
	assert_int_equal(storage_commit(s), 0);
	projector_free(p);
}

/* Changes the store behind the engine's back, which has it open. */
static PRINTF_LIKE(2, 3) void mix_change(const struct mix_side *side, const char *format, ...)
{
	char sql[160];
	sqlite3 *db = NULL;
	va_list args;
	va_start(args, format);
	(void)vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	assert_int_equal(sqlite3_open(side->world->path, &db), SQLITE_OK);
	(void)sqlite3_busy_timeout(db, 5000);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* What the ledger says ------------------------------------------------------------ */

/* Each counts what should not be: links and executions of what is gone, executions that hang on
 * another run than the latest that had begun and not ended, executions that count as ones that are
 * yet to be counted; at last the skipped ones, of which the engine counts as many. */
#define MIX_AMISS                                                                                  \
	"SELECT (SELECT count(*) FROM event_link"                                                  \
	"  WHERE sandbox_key NOT IN (SELECT sandbox_key FROM sandbox)),"                           \
	" (SELECT count(*) FROM event_link WHERE run_key > 0"                                      \
	"  AND run_key NOT IN (SELECT run_key FROM run)),"                                         \
	" (SELECT count(*) FROM execution WHERE run_key > 0"                                       \
	"  AND run_key NOT IN (SELECT run_key FROM run)),"                                         \
	" (SELECT count(*) FROM execution x"                                                       \
	"  JOIN execution_traits z ON z.traits_key = x.traits_key"                                 \
	"  WHERE z.named_run = 0 AND coalesce(x.run_key, 0) <> coalesce((SELECT r.run_key"         \
	"   FROM run r WHERE r.sandbox_key = x.sandbox_key"                                        \
	"   AND r.time_s IS NOT NULL AND r.time_ms IS NOT NULL"                                    \
	"   AND r.time_s * 1000 + r.time_ms <= x.time_s * 1000 + x.time_ms"                        \
	"   AND (r.ended_after_ms IS NULL OR x.time_s * 1000 + x.time_ms"                          \
	"    <= r.time_s * 1000 + r.ended_after_ms)"                                               \
	"   ORDER BY r.time_s * 1000 + r.time_ms DESC, r.run_id DESC LIMIT 1), 0)),"               \
	" (SELECT count(*) FROM alert_execution),"                                                 \
	" (SELECT count(*) FROM skipped)"

/* All that the ledger and alerts have counted; asserts on the way that nothing is amiss. The caller
 * frees. */
static char *mix_read(const struct mix_side *side)
{
	char *text = NULL, *amiss = NULL, nothing[48];
	size_t size = 0;
	struct storage_position at;
	assert_int_equal(storage_position(side->world->s, &at), 0);
	(void)snprintf(nothing, sizeof(nothing), "0|0|0|0|0|%lld", (long long)at.skipped);
	sqlite3 *db = begin_reading(side->world);
	FILE *f = open_memstream(&amiss, &size);
	assert_non_null(f);
	write_rows(db, MIX_AMISS, f);
	assert_int_equal(fclose(f), 0);
	assert_string_equal(amiss, nothing);
	free(amiss);
	f = open_memstream(&text, &size);
	assert_non_null(f);
	write_ledger(db, f);
	write_rows(db, "SELECT folded_seq, skipped FROM ledger_state", f);
	(void)fputs("\n\n", f);
	write_rows(db, "SELECT * FROM alert_bucket ORDER BY 1, 2, 3, 4", f);
	(void)fputs("\n", f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return text;
}

static void mix_print_lines(const char *whose, const char *text, int n)
{
	for (; n > 0 && *text; n--) {
		size_t len = strcspn(text, "\n");
		print_error("%s: %.*s\n", whose, (int)len, text);
		text += len + (text[len] == '\n');
	}
}

static void mix_expect_same(const char *a_is, const char *a, const char *b_is, const char *b)
{
	enum { LINES = 4 };
	size_t line = 0;
	if (strcmp(a, b) == 0)
		return;
	for (size_t i = 0; a[i] == b[i]; i++)
		if (a[i] == '\n')
			line = i + 1;
	mix_print_lines(a_is, a + line, LINES);
	mix_print_lines(b_is, b + line, LINES);
	fail_msg("the ledgers differ");
}

/* What was done ---------------------------------------------------------------------- */

struct mix_notes {
	char lines[MIX_NOTES][160];
	size_t n;
};

static PRINTF_LIKE(2, 3) void mix_note(struct mix_notes *notes, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	(void)vsnprintf(notes->lines[notes->n++ % MIX_NOTES], sizeof(notes->lines[0]), format,
			args);
	va_end(args);
}

static void mix_print_notes(const struct mix_notes *notes)
{
	for (size_t i = notes->n > MIX_NOTES ? notes->n - MIX_NOTES : 0; i < notes->n; i++)
		print_error("  %s\n", notes->lines[i % MIX_NOTES]);
}
