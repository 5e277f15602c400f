/* A small world for the ledger's tests: events as table lines, folded in any order.
 *
 * Times are milliseconds from 2026-11-22T10:00:00Z. Template 1 (the default) is 2 vCPU and 512 MiB,
 * 30,250 nano-USD a second; template 2 has no size; source 9 is not priced. An event's place in
 * the table, from 1, is its seq; its id is the one given, else "e" and that place as a letter.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "clock.h"
#include "ledger.h"

#define T0 INT64_C(1795341600000)
#define LINES_MAX 64
#define NANOUSD_PER_S 30250
#define REPORT(start, ms)                                                                          \
	{                                                                                          \
		true, T0 + (start), (ms), 2, 512                                                   \
	}
#define LATE INT64_C(1000000000) /* long after everything */

struct line {
	enum event_kind kind;
	int64_t ms;
	int64_t ns; /* and nanoseconds */
	const char *run; /* NULL: loose */
	const char *id;
	int64_t timeout_ms; /* 0: none */
	struct event_report report;
	int64_t source, template, team, reason; /* 0: 1, 1, 1 and none; -1: none */
	int64_t startup_ms; /* 0: none */
	const char *metadata;
};

struct world {
	const struct line *lines;
	size_t n;
	char ids[LINES_MAX][EVENT_ID_MAX + 1];
	struct pricing pricing;
	struct ledger_terms terms;
	struct ledger_sandbox sandbox;
	int64_t now_ms;
};

static const char *world_id_of(void *ctx, int64_t seq)
{
	const struct world *w = ctx;
	return seq >= 1 && (size_t)seq <= w->n ? w->ids[seq - 1] : NULL;
}

static bool world_priced(void *ctx, int64_t source_key)
{
	return source_key != 9;
}

static bool world_size(void *ctx, int64_t template_key, int64_t *ret_vcpu, int64_t *ret_memory_mb)
{
	*ret_vcpu = template_key == 3 ? 4 : 2;
	*ret_memory_mb = template_key == 3 ? 1024 : 512;
	return template_key == 1 || template_key == 3;
}

static inline int64_t key_or(int64_t key, int64_t otherwise)
{
	return key ? base_max_i64(key, 0) : otherwise;
}

static void world_fresh(struct world *w)
{
	ledger_sandbox_finish(&w->sandbox);
	(void)snprintf(w->sandbox.id, sizeof(w->sandbox.id), "sbx");
	w->sandbox.id_of = world_id_of;
	w->sandbox.id_ctx = w;
}

static void world_init(struct world *w, const struct line *lines, size_t n)
{
	assert_in_range(n, 0, LINES_MAX);
	memset(w, 0, sizeof(*w));
	w->lines = lines;
	w->n = n;
	w->now_ms = T0 + LATE;
	for (size_t i = 0; i < n; i++)
		(void)snprintf(w->ids[i], sizeof(w->ids[i]), "%s%c",
			       lines[i].id ? lines[i].id : "e",
			       lines[i].id ? '\0' : (char)('0' + i));
	pricing_init(&w->pricing, (struct pricing_rates) { 14000000000, 4500000000 });
	w->terms = (struct ledger_terms) { &w->pricing, world_priced, world_size, w, 86400000 };
	ledger_sandbox_init(&w->sandbox);
	world_fresh(w);
}

static int world_try(struct world *w, size_t i)
{
	const struct line *l = &w->lines[i];
	struct event event = {
		.time_unix_ns = (T0 + l->ms) * CLOCK_NS_PER_MS + l->ns,
		.kind = l->kind,
		.run_id = { l->run, l->run ? strlen(l->run) : 0 },
		.metadata = { l->metadata, l->metadata ? strlen(l->metadata) : 0 },
		.set_timeout_unix_ms = l->timeout_ms ? T0 + l->timeout_ms : EVENT_ABSENT,
		.startup_ms = l->startup_ms ? l->startup_ms : EVENT_ABSENT,
		.report = l->report,
	};
	memcpy(event.id, w->ids[i], sizeof(event.id));
	struct ledger_event e = {
		&event,
		(int64_t)i + 1,
		{ key_or(l->source, 1), key_or(l->template, 1), key_or(l->team, 1) },
		l->reason,
	};
	return ledger_apply(&w->sandbox, &e);
}

static void world_apply(struct world *w, size_t i)
{
	assert_int_equal(world_try(w, i), 0);
}

static void world_settle(struct world *w)
{
	assert_int_equal(ledger_settle(&w->sandbox, &w->terms, w->now_ms), 0);
}

static struct ledger_fact fact_as_stored(const struct ledger_fact *fact)
{
	return (struct ledger_fact) {
		.mark = fact->mark,
		.kind = fact->kind,
		.dims = fact->dims,
		.kill_reason_key = fact->kill_reason_key,
		.timeout_ms = fact->timeout_ms,
		.report = fact->report,
	};
}

/* What comes back from a store: facts and accounts, nothing that only memory knew. */
static void world_reload(struct world *w)
{
	struct ledger_sandbox *s = &w->sandbox;
	size_t n = 0;
	for (size_t i = 0; i < s->n_runs; i++) {
		struct ledger_run run = s->runs[i];
		if (run.gone)
			continue;
		run.is_stored = true;
		run.facts_changed = false;
		run.stored = run.account;
		run.start = fact_as_stored(&run.start);
		run.end = fact_as_stored(&run.end);
		s->runs[n++] = run;
	}
	s->n_runs = n;
	s->n_loose_stored = s->n_loose;
	s->is_stored = true;
	s->killed.dims = (struct ledger_dims) { s->killed.dims.source_key, 0, 0 };
	s->killed.report = (struct event_report) { .present = false };
	memset(&s->totals, 0x55, sizeof(s->totals));
}

static inline struct ledger_sandbox *world_fold(struct world *w)
{
	world_fresh(w);
	for (size_t i = 0; i < w->n; i++)
		world_apply(w, i);
	world_settle(w);
	return &w->sandbox;
}

/* NULL if there is no such run, or nothing to show. */
static inline const struct ledger_account *world_run(const struct world *w, const char *id)
{
	for (size_t i = 0; i < w->sandbox.n_runs; i++) {
		const struct ledger_run *run = &w->sandbox.runs[i];
		if (!strcmp(run->id, id) && !run->gone && run->account.exists)
			return &run->account;
	}
	return NULL;
}

static inline int64_t relative(int64_t ms)
{
	return ms == LEDGER_ABSENT ? -1 : ms - T0;
}

/* Everything that anybody can see of the sandbox, as text. */
static inline void world_describe(const struct world *w, char *buf, size_t size)
{
	const struct ledger_sandbox *s = &w->sandbox;
	const struct ledger_totals *t = &s->totals;
	size_t n = 0;
	for (size_t i = 0; i < s->n_runs; i++) {
		const struct ledger_account *a = &s->runs[i].account;
		if (s->runs[i].gone || !a->exists)
			continue;
		n += (size_t)snprintf(
			buf + n, size - n,
			"%s [%jd %jd) %s reason %jd dims %jd/%jd/%jd size %jd/%jd ms %jd rate %jd "
			"cost %jd %s due %jd\n",
			s->runs[i].id, (intmax_t)relative(a->started_ms),
			(intmax_t)relative(a->ended_ms), ledger_end_kind_name(a->end_kind),
			(intmax_t)a->kill_reason_key, (intmax_t)a->dims.source_key,
			(intmax_t)a->dims.template_key, (intmax_t)a->dims.team_key,
			(intmax_t)a->vcpu_count, (intmax_t)a->memory_mb, (intmax_t)a->runtime_ms,
			(intmax_t)a->rates.vcpu_second_femto, (intmax_t)a->cost_nanousd,
			ledger_cost_source_name(a->cost_source), (intmax_t)relative(a->due_ms));
		assert_true(n < size);
	}
	n += (size_t)snprintf(
		buf + n, size - n,
		"%s created %jd ended %jd expires %jd reason %jd dims %jd/%jd/%jd runs %jd ms %jd "
		"cost %jd unknown %jd; first %jd last %jd/%jd startup %jd metadata %s\n",
		ledger_state_name(t->state), (intmax_t)relative(t->created_ms),
		(intmax_t)relative(t->ended_ms), (intmax_t)relative(t->expires_ms),
		(intmax_t)t->kill_reason_key, (intmax_t)t->dims.source_key,
		(intmax_t)t->dims.template_key, (intmax_t)t->dims.team_key, (intmax_t)t->runs,
		(intmax_t)t->runtime_ms, (intmax_t)t->cost_nanousd, (intmax_t)t->unknown_cost,
		(intmax_t)relative(s->first_event_ms), (intmax_t)s->last.seq,
		(intmax_t)s->last_source_key, (intmax_t)s->startup_ms,
		s->metadata ? s->metadata : "none");
	assert_true(n < size);
}
