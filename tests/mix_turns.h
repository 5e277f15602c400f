/* For test_mix.c: what a writer does with a store, a turn at a time and in any order that it
 * allows, and what goes wrong meanwhile.
 */
#pragma once

#include "mix_sides.h"

#include "scarce.h"
#include "storage_sqlite_internal.h"

#define N_CONFIGS 3
#define SLICE_EVENTS_MAX 60
#define SLICE_US 1000000 /* never too short: the same slices on every machine */
#define SPOILT_MAX 400

struct manner {
	bool loose;
	bool stops; /* loose: retention, now and then, before it is done */
	bool crowds_instants;
	int64_t retention_ms, ledger_retention_ms;
};

struct sum {
	int64_t stored, disk_faults, memory_faults, cut_off, parts, swapped_amid, restarted_amid;
	int64_t rebuilt, rebuild_faults, pruned_events, pruned_sandboxes, sealed, requeued,
		compared;
};

struct spoilt {
	int64_t seq, body_len;
};

struct mix {
	uint64_t seed, random;
	struct manner manner;
	int round;
	struct config *configs[N_CONFIGS], *config; /* and the one of now */
	struct mix_events events;
	struct mix_side tried, control;
	bool fold_fails;
	struct spoilt spoilt[SPOILT_MAX];
	size_t n_spoilt;
	struct mix_notes notes;
	struct sum sum;
};

static int64_t clock_ms;
int64_t __wrap_clock_unix_ms(void);

int64_t __wrap_clock_unix_ms(void)
{
	return clock_ms;
}

static uint64_t below(struct mix *m, uint64_t n)
{
	return disk_below(&m->random, n);
}

static bool one_in(struct mix *m, uint64_t n)
{
	return below(m, n) == 0;
}

static void pass_time(int64_t ms)
{
	clock_ms += ms;
}

/* Faults --------------------------------------------------------------------------- */

static void begin_disk_fault(struct mix *m)
{
	static const int errors[] = { EIO, ENOSPC, ESTALE };
	static const unsigned int kinds[] = { DISK_READS | DISK_WRITES | DISK_SYNCS, DISK_WRITES,
					      DISK_READS };
	unsigned int kind = kinds[below(m, ARRAY_SIZE(kinds))];
	int error = errors[below(m, ARRAY_SIZE(errors))];
	bool stays = one_in(m, 4);
	disk_break_only(kind, 1 + (long)below(m, kind == DISK_WRITES ? 12 : 30), error, stays);
}

/* In what comes next; or none. */
static void begin_fault(struct mix *m)
{
	uint64_t what = below(m, 9);
	atomic_store(&disk.failed, 0);
	if (what < 3)
		begin_disk_fault(m);
	else if (what < 5)
		scarce_begin(1 + (long)below(m, what == 3 ? 20 : 300));
}

/* A statement that is left open keeps the connection's view of the log: no checkpoint comes by, and
 * once somebody else has written nothing can be. */
static void expect_none_open(const struct storage *s)
{
	sqlite3_stmt *statement = NULL;
	while ((statement = sqlite3_next_stmt(s->db, statement)))
		if (sqlite3_stmt_busy(statement))
			fail_msg("left open: %s", sqlite3_sql(statement));
}

/* What came of it: r. */
static void end_fault(struct mix *m, int r)
{
	disk_mend();
	m->sum.memory_faults += scarce_end();
	m->sum.disk_faults += atomic_load(&disk.failed) > 0;
	if (r < 0)
		mix_note(&m->notes, "%s", storage_error(m->tried.world->s));
	assert_true(r == 0 || storage_is_failure(r));
	expect_none_open(m->tried.world->s);
}

/* What the writer does ---------------------------------------------------------------- */

static void fold(struct mix *m)
{
	static const size_t parts[] = { 0, 1, 2, 3, 5, 10 };
	struct projector *p = m->tried.world->p;
	bool more, was_writing = projector_is_writing(p);
	size_t part = parts[below(m, ARRAY_SIZE(parts))], max = 1 + below(m, SLICE_EVENTS_MAX);
	projector_set_part(p, part);
	begin_fault(m);
	int r = projector_step(p, SLICE_US, max, &more);
	end_fault(m, r);
	mix_note(&m->notes, "fold up to %zu, part %zu: %d, at %lld%s", max, part, r,
		 (long long)projector_folded_seq(p), projector_is_amid(p) ? ", amid" : "");
	m->fold_fails = r < 0;
	m->sum.cut_off += r < 0 && was_writing;
	m->sum.parts += projector_is_writing(p);
}

static void gather(struct mix *m)
{
	int64_t min = 1 + (int64_t)below(m, 8);
	size_t max = 1 + below(m, SLICE_EVENTS_MAX);
	if (projector_is_writing(m->tried.world->p) || one_in(m, 2))
		return;
	begin_fault(m);
	int r = projector_gather(m->tried.world->p, min, SLICE_US, max);
	end_fault(m, r);
	mix_note(&m->notes, "gather %lld to %zu: %d", (long long)min, max, r);
	m->fold_fails |= r < 0;
}

static void step_rebuild(struct mix *m, bool may_fail)
{
	struct rebuild *rebuild = m->tried.rebuild;
	struct rebuild_progress progress;
	bool is_amid = projector_is_amid(m->tried.world->p);
	bool was_running = rebuild_is_running(rebuild);
	int64_t budget_us = one_in(m, 2) ? 1 : SLICE_US;
	if (may_fail)
		begin_fault(m);
	int r = rebuild_step(rebuild, budget_us);
	end_fault(m, r);
	rebuild_progress(rebuild, &progress);
	bool is_done = was_running && !rebuild_is_running(rebuild) && progress.error == 0;
	mix_note(&m->notes, "rebuild: %d, at %lld%s%s, ended with %d", r, (long long)progress.seq,
		 is_amid ? ", amid" : "", is_done ? ", done" : "", progress.error);
	m->sum.rebuild_faults += r < 0;
	m->sum.rebuilt += is_done;
	m->sum.swapped_amid += is_done && is_amid;
}

static void step_retention(struct mix *m)
{
	begin_fault(m);
	int r = retention_step(m->tried.retention);
	end_fault(m, r);
	mix_note(&m->notes, "retention: %d", r);
	expect_sound(m->tried.world); /* wherever it stops */
}

/* As in the writer: a rebuild may help a fold that fails, retention never runs amid a slice. */
static bool may_work_aside(const struct mix *m)
{
	if (m->fold_fails)
		return rebuild_has_work(m->tried.rebuild);
	return (rebuild_has_work(m->tried.rebuild) || retention_has_work(m->tried.retention)) &&
	       !projector_is_amid(m->tried.world->p);
}

/* One that helps goes through to the end now and then, for the swap amid a slice. */
static void work_aside(struct mix *m)
{
	if (!may_work_aside(m))
		return;
	if (!rebuild_has_work(m->tried.rebuild)) {
		if (m->manner.loose)
			step_retention(m);
		return;
	}
	step_rebuild(m, true);
	if (m->fold_fails && one_in(m, 2))
		for (int i = 0; i < 300 && rebuild_is_running(m->tried.rebuild); i++)
			step_rebuild(m, false);
}

static void tick(struct mix *m)
{
	if (projector_is_writing(m->tried.world->p))
		return;
	pass_time((int64_t)below(m, MIX_HOUR_MS / 3));
	if (m->manner.loose)
		assert_int_equal(retention_tick(m->tried.retention), 0);
	begin_fault(m);
	int r = projector_tick(m->tried.world->p, clock_ms);
	end_fault(m, r);
	mix_note(&m->notes, "tick: %d", r);
}

static void ask_for_rebuild(struct mix *m)
{
	if (!one_in(m, 3))
		return;
	mix_note(&m->notes, "rebuild wanted");
	assert_int_equal(rebuild_request(m->tried.rebuild), 0);
}

static void restart(struct mix *m)
{
	if (!one_in(m, 6))
		return;
	bool is_amid = projector_is_amid(m->tried.world->p);
	bool is_orderly = one_in(m, 2) && rebuild_stop(m->tried.rebuild) == 0;
	mix_note(&m->notes, "restart, %s%s", is_orderly ? "in order" : "crashed",
		 is_amid ? ", amid" : "");
	m->sum.restarted_amid += is_amid;
	mix_stop(&m->tried);
	mix_start(&m->tried, m->config);
	m->fold_fails = false;
}

/* What comes in ------------------------------------------------------------------------ */

/* The event that was stored last can be read no more: it will be skipped. */
static void spoil(struct mix *m)
{
	char sql[80];
	struct spoilt s = { .seq = storage_stored_seq(m->tried.world->s) };
	if (m->n_spoilt == SPOILT_MAX)
		return;
	(void)snprintf(sql, sizeof(sql), "SELECT body_len FROM event WHERE seq = %lld",
		       (long long)s.seq);
	CLEANUP_FREE char *body_len = rows_of(m->tried.world, sql);
	s.body_len = strtoll(body_len, NULL, 10);
	m->spoilt[m->n_spoilt++] = s;
	for (int i = 0; i < (m->manner.loose ? 1 : 2); i++)
		mix_change(i ? &m->control : &m->tried,
			   "UPDATE event SET body_len = 1 WHERE seq = %lld", (long long)s.seq);
	mix_note(&m->notes, "event %lld is spoilt", (long long)s.seq);
}

static enum storage_outcome put_event(const struct mix_side *side, const struct mix_event *event,
				      struct parcel *p)
{
	char *body = strdup(event->body);
	assert_non_null(body);
	init_parcel_owned(p, body, IN_2100_MS);
	p->delivery.source = event->source;
	assert_int_equal(p->judged.verdict, INGEST_STORE);
	return put(side->world, p);
}

static void receive(struct mix *m)
{
	struct mix_event event = mix_next(&m->events);
	PARCEL p, same = { 0 };
	enum storage_outcome outcome = put_event(&m->tried, &event, &p);
	if (!m->manner.loose)
		assert_int_equal(put_event(&m->control, &event, &same), outcome);
	free(event.body);
	if (outcome != STORAGE_STORED)
		return;
	m->sum.stored++;
	if (one_in(m, 60))
		spoil(m);
	else if (one_in(m, 2))
		offer(m->tried.world, &p);
}

/* Now and then an event, too: between the parts of a slice as anywhere. */
static void work(struct mix *m, uint64_t n)
{
	static void (*const turns[])(struct mix * m) = {
		fold,	    fold,	fold,	    fold, gather,
		work_aside, work_aside, work_aside, tick, ask_for_rebuild,
		restart,    receive,
	};
	for (; n > 0; n--)
		turns[below(m, ARRAY_SIZE(turns))](m);
}
