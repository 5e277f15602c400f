/* Events at random for test_mix.c, the same for the same seed: of a few sandboxes at a time, which
 * move on as time does. Late ones and repeats, executions and runs reported again with other
 * figures, ends without a start, templates and sources that change or are not known.
 */
#pragma once

#include "random_events.h"

#include "clock.h"

#define MIX_HOUR_S 3600
#define MIX_HOUR_MS INT64_C(3600000)
#define MIX_SANDBOXES 24 /* at a time */
#define MIX_EXECUTIONS 12 /* ids, in each of them: most reports are about known ones */
#define MIX_REMEMBERED 64 /* bodies */
#define MIX_BUSY_EVENTS 120 /* more executions than go at once when the sandbox is pruned */
#define MIX_BUSY_EXECUTIONS 1000 /* ids */

struct mix_events {
	uint64_t random;
	bool crowds_instants; /* many at one instant; else none but repeats */
	int64_t base_s; /* most happen in the hour from here */
	int64_t newest_s; /* of those that were made */
	int first_sandbox; /* of those of now, by number */
	int busy_sandbox, busy_left; /* one that executes much, in a row; 0: none does */
	long n;
	char *remembered[MIX_REMEMBERED]; /* some of the last, to be told again */
};

struct mix_event {
	char *body;
	const char *source;
};

/* One that is being written. */
struct mix_draft {
	uint64_t *random;
	int64_t ms;
	uint64_t n_executions; /* ids */
	char data[900],
		metadata[48]; /* the latter a member of the former, with its comma, or empty */
};

static uint64_t mix_below(struct mix_draft *d, uint64_t n)
{
	return disk_below(d->random, n);
}

static PRINTF_LIKE(2, 3) void mix_add(struct mix_draft *d, const char *format, ...)
{
	size_t len = strlen(d->data);
	va_list args;
	va_start(args, format);
	int n = vsnprintf(d->data + len, sizeof(d->data) - len, format, args);
	va_end(args);
	assert_in_range(n, 0, sizeof(d->data) - len - 1);
}

static void mix_add_time(struct mix_draft *d, const char *key, int64_t ms)
{
	char text[CLOCK_TEXT_MAX];
	mix_add(d, ",\"%s\":\"%s\"", key, clock_format_ms(ms, text));
}

/* One draw a statement: in which order arguments are evaluated is the compiler's choice. */
static void mix_write_execution(struct mix_draft *d)
{
	static const char *const outcomes[] = { "\"exit_code\":0", "\"exit_code\":0",
						"\"exit_code\":1",
						"\"status\":\"timeout\",\"timed_out\":true" };
	mix_add(d, "{\"code_execution\":{\"execution_id\":\"x%d\"",
		(int)mix_below(d, d->n_executions));
	mix_add(d, ",\"duration_ms\":%d", (int)mix_below(d, 90000));
	mix_add(d, ",%s", outcomes[mix_below(d, ARRAY_SIZE(outcomes))]);
	if (mix_below(d, 2))
		mix_add_time(d, "started_at", d->ms - (int64_t)mix_below(d, 600000));
	if (mix_below(d, 4) == 0)
		mix_add(d, ",\"cost\":0.00%d", (int)mix_below(d, 100));
	if (mix_below(d, 4) == 0)
		mix_add(d, ",\"vcpu_count\":%d,\"memory_mb\":256", 1 + (int)mix_below(d, 4));
	mix_add(d, "}%s}", d->metadata);
}

/* The executor's own account of the run, or none. */
static void mix_write_end(struct mix_draft *d)
{
	if (mix_below(d, 2)) {
		mix_add(d, ",\"execution\":{\"memory_mb\":512,\"vcpu_count\":2");
		mix_add(d, ",\"execution_time\":%d", (int)mix_below(d, 4000000));
		mix_add_time(d, "started_at", d->ms - (int64_t)mix_below(d, 4000000));
		mix_add(d, "}");
	}
	mix_add(d, "%s}", d->metadata);
}

static void mix_write_pause(struct mix_draft *d)
{
	mix_add(d, "{\"kept\":true");
	mix_write_end(d);
}

static void mix_write_kill(struct mix_draft *d)
{
	mix_add(d, "{\"kill_reason\":\"orphaned\"");
	mix_write_end(d);
}

static void mix_write_timeout(struct mix_draft *d)
{
	mix_add(d, "{\"kept\":true");
	mix_add_time(d, "set_timeout", d->ms + (int64_t)mix_below(d, 8000000) - 1000000);
	mix_add(d, "%s}", d->metadata);
}

static void mix_write_plain(struct mix_draft *d)
{
	mix_add(d, "{\"startup_ms\":%d,\"source_sandbox_id\":\"sb1\"%s}", (int)mix_below(d, 9000),
		d->metadata);
}

#define MIX_EXECUTED 0 /* its kind */

/* Few are killed: what comes behind that changes little. */
static const struct mix_kind {
	const char *type;
	void (*write_data)(struct mix_draft *d);
	uint64_t weight;
} mix_kinds[] = {
	{ "sandbox.code_executed", mix_write_execution, 9 },
	{ "sandbox.lifecycle.created", mix_write_plain, 5 },
	{ "sandbox.lifecycle.paused", mix_write_pause, 5 },
	{ "sandbox.lifecycle.resumed", mix_write_plain, 5 },
	{ "sandbox.lifecycle.killed", mix_write_kill, 1 },
	{ "sandbox.lifecycle.updated", mix_write_timeout, 5 },
	{ "sandbox.lifecycle.forked", mix_write_plain, 2 },
	{ "sandbox.lifecycle.checkpointed", mix_write_plain, 2 },
	{ "sandbox.something_new", mix_write_plain, 2 },
	{ "e2b-hookd.test", mix_write_plain, 2 },
};

static const struct mix_kind *mix_pick_kind(uint64_t *random)
{
	const struct mix_kind *kind = mix_kinds;
	uint64_t sum = 0;
	for (size_t i = 0; i < ARRAY_SIZE(mix_kinds); i++)
		sum += mix_kinds[i].weight;
	for (uint64_t at = disk_below(random, sum); at >= kind->weight; kind++)
		at -= kind->weight;
	return kind;
}

static int64_t mix_pick_ms(struct mix_events *e)
{
	int64_t ms = e->base_s * 1000 + (int64_t)disk_below(&e->random, MIX_HOUR_MS);
	if (disk_below(&e->random, 5) == 0)
		ms -= (int64_t)disk_below(&e->random, 2 * MIX_HOUR_MS);
	if (!e->crowds_instants)
		return ms - ms % 1000 + e->n % 1000;
	static const int64_t grains_ms[] = { 1,		  1000,	       60000,	   600000,
					     MIX_HOUR_MS, MIX_HOUR_MS, MIX_HOUR_MS };
	return ms - ms % grains_ms[disk_below(&e->random, ARRAY_SIZE(grains_ms))];
}

/* Where instants are not to be shared, each event has nanoseconds of its own. */
static void mix_format_time(const struct mix_events *e, int64_t ms, char buf[static 40])
{
	char text[CLOCK_TEXT_MAX];
	int len = (int)strlen(clock_format_ms(ms, text));
	if (e->crowds_instants)
		(void)snprintf(buf, 40, "%s", text);
	else
		(void)snprintf(buf, 40, "%.*s%06ldZ", len - 1, text, 1 + e->n % 999000);
}

static int mix_pick_sandbox(struct mix_events *e)
{
	uint64_t n = e->crowds_instants ? MIX_SANDBOXES / 2 : MIX_SANDBOXES;
	int nth = e->first_sandbox + (int)disk_below(&e->random, n);
	if (disk_below(&e->random, 30) > 0)
		return nth;
	int back = (int)disk_below(&e->random, 30); /* one that was let alone for long */
	return e->first_sandbox > back ? e->first_sandbox - back : 0;
}

/* Now and then a sandbox is busy for a while. */
static bool mix_is_busy(struct mix_events *e)
{
	if (e->busy_left == 0 && disk_below(&e->random, 150) == 0) {
		e->busy_sandbox = mix_pick_sandbox(e);
		e->busy_left = MIX_BUSY_EVENTS;
	}
	if (e->busy_left == 0 || disk_below(&e->random, 6) == 0)
		return false;
	e->busy_left--;
	return true;
}

/* NULL: none is told. Of some sandboxes every event names its run, of some none does. */
static const char *mix_pick_run(struct mix_events *e, int sandbox, char buf[static 24])
{
	uint64_t pick = disk_below(&e->random, 6);
	(void)snprintf(buf, 24, "run%d-%d", sandbox, (int)pick / 2);
	return sandbox % 3 == 0 || (sandbox % 3 == 2 && pick % 2) ? buf : NULL;
}

static const char *mix_pick_template(struct mix_events *e, int sandbox)
{
	uint64_t pick = disk_below(&e->random, 40);
	if (pick < 4)
		return NULL;
	if (pick < 13)
		return "tpl-b";
	return pick < 22 && sandbox % 5 == 0 ? "tpl-c" : "tpl-a";
}

static char *mix_write_body(struct mix_events *e)
{
	struct mix_draft d = { .random = &e->random, .ms = mix_pick_ms(e) };
	const struct mix_kind *kind = mix_pick_kind(&e->random);
	bool is_busy = mix_is_busy(e);
	if (is_busy)
		kind = &mix_kinds[MIX_EXECUTED];
	d.n_executions = is_busy ? MIX_BUSY_EXECUTIONS : MIX_EXECUTIONS;
	int nth = is_busy ? e->busy_sandbox : mix_pick_sandbox(e);
	char id[40], when[40], sandbox[16], run[24], more[80];
	struct told told = { .id = id, .type = kind->type, .time = when, .sandbox = sandbox };
	random_uuid(&e->random, id);
	mix_format_time(e, d.ms, when);
	(void)snprintf(sandbox, sizeof(sandbox), "sb%d", nth);
	told.run = mix_pick_run(e, nth, run);
	told.template = mix_pick_template(e, nth);
	if (mix_below(&d, 3) == 0)
		(void)snprintf(d.metadata, sizeof(d.metadata),
			       ",\"sandbox_metadata\":{\"k\":\"%d\"}", (int)mix_below(&d, 9));
	kind->write_data(&d);
	told.data = d.data;
	uint64_t origin = mix_below(&d, 8); /* a team and a build, or none is told */
	(void)snprintf(more, sizeof(more),
		       "\"sandbox_team_id\":\"team-%d\",\"sandbox_build_id\":\"b%d\"",
		       (int)origin % 2, (int)origin / 2 % 2);
	told.more = origin < 4 ? more : NULL;
	e->newest_s = base_max_i64(e->newest_s, d.ms / 1000);
	e->n++;
	return write_body(&told);
}

/* New, or now and then a repeat, which may come by the other source. The caller frees the body. */
static struct mix_event mix_next(struct mix_events *e)
{
	char **slot = &e->remembered[disk_below(&e->random, MIX_REMEMBERED)];
	if (!*slot || disk_below(&e->random, 25) > 0) {
		free(*slot);
		*slot = mix_write_body(e);
	}
	struct mix_event event = { strdup(*slot), disk_below(&e->random, 8) ? "e2b" : "free" };
	assert_non_null(event.body);
	return event;
}

static void mix_events_finish(struct mix_events *e)
{
	for (size_t i = 0; i < MIX_REMEMBERED; i++)
		free(e->remembered[i]);
}
