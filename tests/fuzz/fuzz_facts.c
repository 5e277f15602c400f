/* A sandbox and its runs from a store that somebody else has written to: rows of any numbers,
 * beside them any bytes as facts. They are refused, or they mean something: then they come back
 * the same when they are written again, and the fold goes on with them without a number running
 * over or a run beyond measure.
 */
#include "fuzz_input.h"

#include "storage_sqlite_facts.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

#define T0 INT64_C(1795341600000) /* 2026-11-22T10:00:00Z */
#define RUNS_MAX 3
#define LONGEST_MS (INT64_C(600) * 366 * 86400000)

static int64_t take_number(struct fuzz_input *in)
{
	uint8_t form = fuzz_byte(in);
	switch (form & 3) {
	case 0:
		return form >> 2;
	case 1:
		return T0 + 1000 * (int64_t)(form >> 2);
	case 2:
		return LEDGER_ABSENT;
	default:
		return (int64_t)fuzz_number(in, 8);
	}
}

static struct ledger_dims take_dims(struct fuzz_input *in)
{
	struct ledger_dims dims;
	dims.source_key = take_number(in);
	dims.template_key = take_number(in);
	dims.team_key = take_number(in);
	return dims;
}

/* As a row is read: the time a run took is what lies between its ends. */
static struct ledger_account take_account(struct fuzz_input *in)
{
	struct ledger_account a = { .exists = fuzz_byte(in) & 1 };
	a.started_ms = take_number(in);
	a.ended_ms = take_number(in);
	a.end_kind = (enum ledger_end_kind)take_number(in);
	a.dims = take_dims(in);
	a.kill_reason_key = take_number(in);
	a.vcpu_count = take_number(in);
	a.memory_mb = take_number(in);
	a.cost_nanousd = take_number(in);
	a.due_ms = take_number(in);
	return a;
}

/* In memory of its own length, so that a sanitizer sees each byte read beyond it. */
static struct span take_blob(struct fuzz_input *in)
{
	size_t len = fuzz_byte(in);
	len = base_min_size(len, in->len);
	char *copy = malloc(len ? len : 1);
	check(copy != NULL);
	if (len)
		memcpy(copy, in->at, len);
	in->at += len;
	in->len -= len;
	return (struct span) { copy, len };
}

#define SAME(a, b, field) check((a)->field == (b)->field)

static void check_same_fact(const struct ledger_fact *a, const struct ledger_fact *b)
{
	SAME(a, b, mark.seq);
	if (a->mark.seq == 0)
		return;
	SAME(a, b, mark.time_ns);
	SAME(a, b, kind);
	SAME(a, b, dims.source_key);
	SAME(a, b, dims.template_key);
	SAME(a, b, dims.team_key);
	SAME(a, b, kill_reason_key);
	SAME(a, b, timeout_ms);
	SAME(a, b, report.present);
	SAME(a, b, report.started_unix_ms);
	SAME(a, b, report.duration_ms);
	SAME(a, b, report.vcpu_count);
	SAME(a, b, report.memory_mb);
}

/* Beside another row the bytes are others; the meaning must be the same. */
static void check_run_comes_back(const struct ledger_run *run, const struct ledger_account *beside)
{
	uint8_t bytes[STORAGE_FACTS_MAX];
	struct ledger_run again = { 0 };
	size_t len = storage_sqlite_facts_put_run(run, beside, bytes);
	check(storage_sqlite_facts_get_run((struct span) { (char *)bytes, len }, beside, &again) ==
	      0);
	SAME(run, &again, named);
	check_same_fact(&run->start, &again.start);
	check_same_fact(&run->end, &again.end);
	check_same_fact(&run->timeout, &again.timeout);
}

static void check_mark(struct ledger_mark a, struct ledger_mark b)
{
	check(a.seq == b.seq && (a.seq == 0 || a.time_ns == b.time_ns));
}

static void check_sandbox_comes_back(const struct ledger_sandbox *s,
				     const struct storage_facts_shown *beside)
{
	uint8_t bytes[STORAGE_FACTS_MAX];
	struct ledger_sandbox again;
	size_t len = storage_sqlite_facts_put_sandbox(s, beside, bytes);
	ledger_sandbox_init(&again);
	check(storage_sqlite_facts_get_sandbox((struct span) { (char *)bytes, len }, beside,
					       &again) == 0);
	SAME(s, &again, names_run);
	SAME(s, &again, first_event_ms);
	SAME(s, &again, last_source_key);
	SAME(s, &again, template_key);
	SAME(s, &again, team_key);
	SAME(s, &again, killed.kill_reason_key);
	check_mark(s->last, again.last);
	check_mark(s->template_mark, again.template_mark);
	check_mark(s->team_mark, again.team_mark);
	check_mark(s->metadata_mark, again.metadata_mark);
	check_mark(s->startup_mark, again.startup_mark);
	check_mark(s->killed.mark, again.killed.mark);
}

/* What the fold and the sums take for granted. */
static void check_possible(const struct ledger_run *run)
{
	const struct ledger_account *a = &run->stored;
	const struct ledger_fact *facts[] = { &run->start, &run->end, &run->timeout };
	for (size_t i = 0; i < ARRAY_SIZE(facts); i++)
		check(facts[i]->mark.seq >= 0 && facts[i]->mark.time_ns >= 0 &&
		      facts[i]->dims.source_key >= 0);
	if (!a->exists || a->started_ms == LEDGER_ABSENT || a->ended_ms == LEDGER_ABSENT)
		return;
	check(a->started_ms >= 0 && a->ended_ms >= a->started_ms);
	check(a->ended_ms - a->started_ms <= LONGEST_MS);
}

/* --- loading --- */

static bool take_run(struct fuzz_input *in, struct ledger_sandbox *s)
{
	struct ledger_run *run = &s->runs[s->n_runs];
	*run = (struct ledger_run) { .is_stored = true, .stored = take_account(in) };
	run->account = run->stored;
	(void)snprintf(run->id, sizeof(run->id), "run-%zu", s->n_runs);
	struct span blob = take_blob(in);
	int r = storage_sqlite_facts_get_run(blob, &run->stored, run);
	free((char *)blob.s);
	check(r == 0 || r == -EUCLEAN);
	check(!run->start.mark.seq || event_kind_starts_run(run->start.kind));
	check(!run->end.mark.seq || event_kind_ends_run(run->end.kind));
	if (r < 0)
		return false;
	check_possible(run);
	check_run_comes_back(run, &run->stored);
	s->n_runs++;
	return true;
}

static bool take_sandbox(struct fuzz_input *in, struct ledger_sandbox *s)
{
	struct storage_facts_shown shown;
	shown.time_ms = take_number(in);
	shown.last_ms = take_number(in);
	shown.dims = take_dims(in);
	shown.kill_reason_key = take_number(in);
	struct span blob = take_blob(in);
	int r = storage_sqlite_facts_get_sandbox(blob, &shown, s);
	free((char *)blob.s);
	check(r == 0 || r == -EUCLEAN);
	if (r == 0)
		check_sandbox_comes_back(s, &shown);
	return r == 0;
}

/* --- going on --- */

static void check_account(const struct ledger_account *a)
{
	if (!a->exists || a->started_ms == LEDGER_ABSENT || a->ended_ms == LEDGER_ABSENT)
		return;
	check(a->runtime_ms >= 0 && a->runtime_ms <= LONGEST_MS);
	check(a->cost_nanousd == LEDGER_ABSENT || a->cost_nanousd >= 0);
}

static void apply(struct ledger_sandbox *s, const struct event *event, int64_t seq)
{
	const struct ledger_event e = { event, seq, { 1, 1, 1 }, 0 };
	check(ledger_apply(s, &e) == 0);
}

static void fold_on(struct ledger_sandbox *s)
{
	static struct pricing pricing;
	const struct ledger_terms terms = { .pricing = &pricing, .max_run_ms = 86400000 };
	const struct event created = { .id = "x",
				       .time_unix_ns = T0 * CLOCK_NS_PER_MS,
				       .kind = EVENT_CREATED,
				       .run_id = SPAN_LITERAL("run-0"),
				       .set_timeout_unix_ms = EVENT_ABSENT,
				       .startup_ms = EVENT_ABSENT };
	struct event killed = created;
	pricing_init(&pricing, (struct pricing_rates) { 14000000000, 4500000000 });
	killed.kind = EVENT_KILLED;
	killed.time_unix_ns += 5 * CLOCK_NS_PER_S;
	killed.run_id = SPAN_ABSENT;
	apply(s, &created, INT64_C(1) << 40);
	apply(s, &killed, (INT64_C(1) << 40) + 1);
	check(ledger_settle(s, &terms, T0 + 60000) == 0);
	for (size_t i = 0; i < s->n_runs; i++) {
		check_account(&s->runs[i].account);
		if (!s->runs[i].gone)
			check_run_comes_back(&s->runs[i], &s->runs[i].account);
	}
	const struct storage_facts_shown shown = {
		.time_ms = s->first_event_ms,
		.last_ms = s->last.time_ns / CLOCK_NS_PER_MS,
		.dims = s->totals.dims,
		.kill_reason_key = s->totals.kill_reason_key,
	};
	check_sandbox_comes_back(s, &shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct ledger_sandbox s;
	ledger_sandbox_init(&s);
	(void)snprintf(s.id, sizeof(s.id), "sbx");
	s.runs_size = RUNS_MAX;
	s.runs = calloc(RUNS_MAX, sizeof(*s.runs));
	check(s.runs != NULL);
	unsigned int n_runs = fuzz_byte(&in) % (RUNS_MAX + 1);
	bool sound = take_sandbox(&in, &s);
	while (sound && n_runs-- > 0)
		sound = take_run(&in, &s);
	if (sound)
		fold_on(&s);
	ledger_sandbox_finish(&s);
	return 0;
}
