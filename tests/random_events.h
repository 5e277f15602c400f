/* Deliveries at random, the same for the same seed: a few sandboxes over some days, events of every
 * kind, late ones, repeats, ids used twice, bodies of all sizes up to some pages. And what a store
 * must be like whatever happened to it.
 */
#pragma once

#include "storage_fixture.h"

#include "rebuild.h"
#include "storage_backup.h"

#include <time.h>

#define RANDOM_FIRST_S INT64_C(1794873600) /* 2026-11-17T00:00:00Z */
#define RANDOM_LAST_S INT64_C(1795190400) /* 2026-11-20T16:00:00Z */
#define RANDOM_SANDBOXES 12

struct random_event {
	char id[40];
	int64_t time_s;
	char *body;
};

/* A row of them; grows. */
struct random_events {
	uint64_t random;
	struct random_event *events;
	size_t n;
	int64_t now_s, step_s;
};

static UNUSED void random_init(struct random_events *r, uint64_t seed, size_t n_expected)
{
	*r = (struct random_events) { .random = seed, .now_s = RANDOM_FIRST_S };
	r->step_s = (RANDOM_LAST_S - RANDOM_FIRST_S) / (int64_t)(n_expected + 1);
}

static UNUSED void random_finish(struct random_events *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->events[i].body);
	free(r->events);
	*r = (struct random_events) { 0 };
}

static UNUSED void random_uuid(uint64_t *random, char buf[static 40])
{
	uint64_t a = disk_random(random), b = disk_random(random);
	(void)snprintf(buf, 40, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned int)(a >> 32),
		       (unsigned int)(a >> 16) & 0xffff, (unsigned int)a & 0xfff,
		       (unsigned int)(b >> 52) & 0xfff,
		       (unsigned long long)(b & UINT64_C(0xffffffffffff)));
}

/* Of a new event: its kind goes by chance, its sandbox and run too. */
static UNUSED char *random_body(struct random_events *r, const struct random_event *e)
{
	static const char *const types[] = {
		"sandbox.created",	 "sandbox.code_executed", "sandbox.code_executed",
		"sandbox.code_executed", "sandbox.paused",	  "sandbox.resumed",
		"sandbox.killed",	 "sandbox.updated",	  "sandbox.something_new",
	};
	char when[32], sandbox[16], run[24], data[200], more[24000];
	time_t at = (time_t)e->time_s;
	struct tm tm;
	(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &tm));
	uint64_t nth = disk_below(&r->random, RANDOM_SANDBOXES), second = disk_below(&r->random, 2);
	(void)snprintf(sandbox, sizeof(sandbox), "sb%llu", (unsigned long long)nth);
	(void)snprintf(run, sizeof(run), "run%llu-%llu", (unsigned long long)nth,
		       (unsigned long long)second);
	/* Now and then what is required is missing. */
	(void)snprintf(
		data, sizeof(data),
		"{\"%s\":{\"execution_id\":\"x%llu\",\"duration_ms\":%llu,\"exit_code\":%llu}}",
		disk_below(&r->random, 20) ? "code_execution" : "code",
		(unsigned long long)disk_below(&r->random, 500),
		(unsigned long long)disk_below(&r->random, 90000),
		(unsigned long long)disk_below(&r->random, 2));
	size_t padding = (size_t)disk_below(&r->random, disk_below(&r->random, 8) ? 700 : 20000);
	int len = snprintf(more, sizeof(more), "\"padding\":\"");
	memset(more + len, 'a' + (int)disk_below(&r->random, 26), padding);
	(void)snprintf(more + len + padding, 2, "\"");
	return write_body(&(struct told) {
		.id = e->id,
		.type = types[disk_below(&r->random, ARRAY_SIZE(types))],
		.time = when,
		.sandbox = sandbox,
		.run = disk_below(&r->random, 5) ? run : NULL,
		.template = nth % 2 ? "template-1" : "template-2",
		.data = data,
		.more = more,
	});
}

/* The next delivery's event: new, a repeat, or another body under an id that was used. */
static UNUSED const struct random_event *random_next(struct random_events *r)
{
	uint64_t kind = disk_below(&r->random, 20);
	const struct random_event *old = r->n ? &r->events[disk_below(&r->random, r->n)] : NULL;
	if (old && kind < 2)
		return old;
	if ((r->n & (r->n - 1)) == 0) {
		r->events = reallocarray(r->events, r->n ? 2 * r->n : 1, sizeof(*r->events));
		assert_non_null(r->events);
		old = NULL;
	}
	struct random_event *e = &r->events[r->n++];
	*e = (struct random_event) { 0 };
	r->now_s += (int64_t)disk_below(&r->random, (uint64_t)(2 * r->step_s));
	r->now_s = base_min_i64(r->now_s, RANDOM_LAST_S);
	e->time_s = kind == 3 ? base_max_i64(r->now_s - 7200, RANDOM_FIRST_S) : r->now_s;
	random_uuid(&r->random, e->id);
	if (old && kind == 2)
		memcpy(e->id, old->id, sizeof(e->id));
	e->body = random_body(r, e);
	return e;
}

/* What must hold ---------------------------------------------------------- */

static UNUSED void print_finding(void *ctx, const char *finding)
{
	print_error("%s\n", finding);
}

static UNUSED void expect_sound(const struct world *w)
{
	char error[STORAGE_ERROR_MAX] = "";
	int r = storage_check(w->path, print_finding, NULL, error);
	if (r != 0)
		fail_msg("storage_check: %d %s", r, error);
}

static UNUSED void rebuild_ledger(struct world *w)
{
	struct rebuild *r = NULL;
	int kept = begin_listening();
	int status = rebuild_new(w->s, w->p, &r);
	if (status == 0)
		status = rebuild_request(r);
	for (int i = 0; status == 0 && rebuild_has_work(r) && i < 100000; i++)
		status = rebuild_step(r, 1000000);
	bool is_done = status == 0 && !rebuild_has_work(r);
	rebuild_free(r);
	free(end_listening(kept));
	if (!is_done)
		fail_msg("the rebuild ended with %d: %s", status, storage_error(w->s));
}

/* Folds what is pending; what comes out is sound, and what a rebuild makes of the same events. */
static UNUSED void expect_ledger_as_rebuilt(struct world *w)
{
	(void)fold_all(w);
	expect_sound(w);
	CLEANUP_FREE char *folded = ledger_of(w);
	rebuild_ledger(w);
	CLEANUP_FREE char *rebuilt = ledger_of(w);
	if (strcmp(folded, rebuilt) != 0)
		fail_msg("--- folded\n%s\n--- rebuilt\n%s", folded, rebuilt);
	expect_rows(w, "SELECT skipped FROM ledger_state", "0");
}
