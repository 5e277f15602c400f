/* A history of one sandbox, eight bytes an event, folded twice: as it came, in one go; and in
 * another order with repeats, settled, stored and loaded in between. Both must say the same, and
 * what they say must hold together: times and money never negative, sums equal to their parts, what
 * is closed stays closed, and what is booked and taken out again leaves nothing.
 */
#include "fuzz_input.h"

#include "clock.h"
#include "ledger.h"
#include "storage_sqlite_facts.h"
#include "storage_sqlite_rollup.h"

#include <errno.h>
#include <string.h>

#define T0 INT64_C(1795341600000) /* 2026-11-22T10:00:00Z */
#define TIME_MS_MAX INT64_C(9214646399999) /* the latest that an event can have */
#define EVENTS_MAX 24
#define BYTES_PER_EVENT 8
#define BOOKED_MS_MAX INT64_C(864000000) /* longer runs have too many hours to book so often */

struct history {
	struct event events[EVENTS_MAX];
	struct ledger_event told[EVENTS_MAX];
	size_t n;
	struct pricing pricing;
	struct ledger_terms terms;
	int64_t now_ms;
	size_t order[EVENTS_MAX];
	uint8_t way;
};

/* --- the history --- */

static const char *id_of(void *ctx, int64_t seq)
{
	const struct history *h = ctx;
	return seq >= 1 && (size_t)seq <= h->n ? h->events[seq - 1].id : NULL;
}

static bool priced(void *ctx, int64_t source_key)
{
	return source_key != 3;
}

static bool size_of(void *ctx, int64_t template_key, int64_t *ret_vcpu, int64_t *ret_memory_mb)
{
	*ret_vcpu = template_key == 3 ? 1024 : 2;
	*ret_memory_mb = template_key == 3 ? 16777216 : 512;
	return template_key != 2;
}

/* Close together, hours or years apart, or at the ends of time: two bits of scale, six of place. */
static int64_t time_of(uint8_t byte)
{
	static const int64_t steps[] = { 500, 600000, INT64_C(31556952000) };
	int64_t place = byte & 63;
	if (byte >> 6 < 3)
		return T0 + place * steps[byte >> 6];
	return place & 1 ? TIME_MS_MAX - place / 2 : place / 2;
}

static struct event_report report_of(uint8_t start, uint8_t duration)
{
	static const int64_t steps[] = { 0, 700, 3600000, INT64_C(4931798400) };
	return (struct event_report) {
		.present = true,
		.started_unix_ms = time_of(start),
		.duration_ms = (duration >> 2) * steps[duration & 3],
		.vcpu_count = duration & 4 ? EVENT_ABSENT : 4,
		.memory_mb = duration & 8 ? EVENT_ABSENT : 1024,
	};
}

static void take_event(struct history *h, struct fuzz_input *in)
{
	static const enum event_kind kinds[] = {
		EVENT_CREATED, EVENT_RESUMED, EVENT_UPDATED,	   EVENT_PAUSED,
		EVENT_KILLED,  EVENT_FORKED,  EVENT_CODE_EXECUTED, EVENT_TEST,
	};
	static const char *const runs[] = { NULL, "a", "b", "sbx@2026-11-22T10:00:00.000Z" };
	struct event *e = &h->events[h->n];
	uint8_t what = fuzz_byte(in), when = fuzz_byte(in), fraction = fuzz_byte(in);
	uint8_t timeout = fuzz_byte(in), report = fuzz_byte(in), duration = fuzz_byte(in);
	uint8_t dims = fuzz_byte(in), more = fuzz_byte(in);
	const char *run = runs[what >> 3 & 3];

	*e = (struct event) {
		.kind = kinds[what & 7],
		.time_unix_ns = time_of(when) * CLOCK_NS_PER_MS + (fraction & 3),
		.run_id = { run, run ? strlen(run) : 0 },
		.set_timeout_unix_ms = timeout ? time_of(timeout) : EVENT_ABSENT,
		.startup_ms = more & 1 ? more : EVENT_ABSENT,
		.metadata = { more & 2 ? "{\"x\":1}" : NULL, more & 2 ? 7u - (more & 4) : 0 },
	};
	if (report && event_kind_ends_run(e->kind))
		e->report = report_of(report, duration);
	/* Ids differ, as those of stored events of one second do; which is later, the input says.
	 */
	(void)snprintf(e->id, sizeof(e->id), "%c%zu", (char)('a' + (fraction >> 2 & 15)), h->n);
	h->told[h->n] = (struct ledger_event) {
		e,
		(int64_t)h->n + 1,
		{ dims & 3, dims >> 2 & 3, dims >> 4 & 3 },
		more >> 4,
	};
	h->n++;
}

static void shuffle(struct history *h, uint64_t chance)
{
	for (size_t i = 0; i < h->n; i++)
		h->order[i] = i;
	for (size_t i = h->n; i > 1; i--) {
		chance = chance * UINT64_C(6364136223846793005) + 1442695040888963407;
		size_t j = (size_t)(chance >> 33) % i, kept = h->order[i - 1];
		h->order[i - 1] = h->order[j];
		h->order[j] = kept;
	}
}

static void take_history(struct history *h, struct fuzz_input *in)
{
	static const int64_t max_runs[] = { 86400000, 3000, 0, INT64_MAX };
	uint8_t terms = fuzz_byte(in);
	h->n = 0;
	h->way = fuzz_byte(in);
	h->now_ms = time_of(fuzz_byte(in));
	uint64_t chance = fuzz_number(in, 2);
	pricing_init(&h->pricing, (struct pricing_rates) { 14000000000, 4500000000 });
	check(pricing_add(&h->pricing, T0 / 1000 + 5, (struct pricing_rates) { 1, INT64_MAX }) ==
	      0);
	h->terms =
		(struct ledger_terms) { &h->pricing, priced, size_of, NULL, max_runs[terms & 3] };
	while (in->len >= BYTES_PER_EVENT && h->n < EVENTS_MAX)
		take_event(h, in);
	shuffle(h, chance);
}

/* --- folding --- */

static void begin(struct history *h, struct ledger_sandbox *s)
{
	ledger_sandbox_init(s);
	(void)snprintf(s->id, sizeof(s->id), "sbx");
	s->id_of = id_of;
	s->id_ctx = h;
}

static void settle(const struct history *h, struct ledger_sandbox *s, int64_t now_ms)
{
	check(ledger_settle(s, &h->terms, now_ms) == 0);
}

static void pass_run_through_store(struct ledger_run *run)
{
	uint8_t bytes[STORAGE_FACTS_MAX];
	size_t len = storage_sqlite_facts_put_run(run, &run->account, bytes);
	run->stored = run->account;
	check(storage_sqlite_facts_get_run((struct span) { (char *)bytes, len }, &run->stored,
					   run) == 0);
	run->is_stored = true;
	run->facts_changed = false;
}

/* What a store gives back: a row for each run that is there, nothing that only memory knew. */
static void pass_through_store(struct ledger_sandbox *s)
{
	const struct storage_facts_shown shown = {
		.time_ms = s->first_event_ms == LEDGER_ABSENT ? 0 : s->first_event_ms,
		.last_ms = s->last.time_ns / CLOCK_NS_PER_MS,
		.dims = s->totals.dims,
		.kill_reason_key = s->totals.kill_reason_key,
	};
	uint8_t bytes[STORAGE_FACTS_MAX];
	size_t n = 0, len = storage_sqlite_facts_put_sandbox(s, &shown, bytes);
	check(storage_sqlite_facts_get_sandbox((struct span) { (char *)bytes, len }, &shown, s) ==
	      0);
	for (size_t i = 0; i < s->n_runs; i++) {
		if (s->runs[i].gone)
			continue;
		s->runs[n] = s->runs[i];
		pass_run_through_store(&s->runs[n++]);
	}
	s->n_runs = n;
	s->n_loose_stored = s->n_loose;
	s->is_stored = true;
	s->killed.report = (struct event_report) { 0 };
	memset(&s->totals, 0x55, sizeof(s->totals));
}

static void apply(struct ledger_sandbox *s, const struct ledger_event *e)
{
	check(ledger_apply(s, e) == 0);
}

static void fold(struct history *h, struct ledger_sandbox *s)
{
	begin(h, s);
	for (size_t i = 0; i < h->n; i++)
		apply(s, &h->told[i]);
	settle(h, s, h->now_ms);
}

static void fold_otherwise(struct history *h, struct ledger_sandbox *s)
{
	begin(h, s);
	for (size_t i = 0; i < h->n; i++) {
		apply(s, &h->told[h->order[i]]);
		if (h->way & 1)
			apply(s, &h->told[h->order[i / 2]]);
		if (h->way & 2)
			settle(h, s, time_of((uint8_t)(h->way * i)));
		if ((h->way & 6) == 6 && s->last.seq) /* only tests: nothing to store */
			pass_through_store(s);
	}
	settle(h, s, h->now_ms);
}

/* --- the same --- */

#define SAME(a, b, field) check((a)->field == (b)->field)

static void check_same_dims(const struct ledger_dims *a, const struct ledger_dims *b)
{
	SAME(a, b, source_key);
	SAME(a, b, template_key);
	SAME(a, b, team_key);
}

static void check_same_account(const struct ledger_account *a, const struct ledger_account *b)
{
	SAME(a, b, started_ms);
	SAME(a, b, ended_ms);
	SAME(a, b, end_kind);
	SAME(a, b, kill_reason_key);
	check_same_dims(&a->dims, &b->dims);
	SAME(a, b, vcpu_count);
	SAME(a, b, memory_mb);
	SAME(a, b, runtime_ms);
	SAME(a, b, rates.vcpu_second_femto);
	SAME(a, b, rates.gib_second_femto);
	SAME(a, b, cost_nanousd);
	SAME(a, b, cost_source);
	SAME(a, b, due_ms);
}

/* Those that exist stand first, in order. */
static size_t count_runs(const struct ledger_sandbox *s)
{
	size_t n = 0;
	while (n < s->n_runs && !s->runs[n].gone && s->runs[n].account.exists)
		n++;
	for (size_t i = n; i < s->n_runs; i++)
		check(s->runs[i].gone || !s->runs[i].account.exists);
	return n;
}

static void check_same_runs(const struct ledger_sandbox *a, const struct ledger_sandbox *b)
{
	size_t n = count_runs(a);
	check(n == count_runs(b));
	for (size_t i = 0; i < n; i++) {
		check(strcmp(a->runs[i].id, b->runs[i].id) == 0);
		check_same_account(&a->runs[i].account, &b->runs[i].account);
	}
}

static void check_same(const struct ledger_sandbox *a, const struct ledger_sandbox *b)
{
	check_same_runs(a, b);
	SAME(a, b, totals.state);
	SAME(a, b, totals.created_ms);
	SAME(a, b, totals.ended_ms);
	SAME(a, b, totals.expires_ms);
	SAME(a, b, totals.kill_reason_key);
	check_same_dims(&a->totals.dims, &b->totals.dims);
	SAME(a, b, totals.runs);
	SAME(a, b, totals.runtime_ms);
	SAME(a, b, totals.cost_nanousd);
	SAME(a, b, totals.unknown_cost);
	SAME(a, b, names_run);
	SAME(a, b, first_event_ms);
	SAME(a, b, last.seq);
	SAME(a, b, last_source_key);
	SAME(a, b, template_key);
	SAME(a, b, team_key);
	SAME(a, b, startup_ms);
	check(!a->metadata == !b->metadata);
	check(!a->metadata || strcmp(a->metadata, b->metadata) == 0);
}

/* --- sound --- */

static void check_shares(const struct ledger_account *a)
{
	int64_t middle = a->started_ms + a->runtime_ms / 2;
	check(ledger_runtime_until(a, a->ended_ms) == a->runtime_ms);
	check(ledger_runtime_until(a, a->started_ms) == 0);
	check(ledger_cost_until(a, a->ended_ms) == a->cost_nanousd);
	if (a->cost_nanousd == LEDGER_ABSENT)
		return;
	int64_t share = ledger_cost_until(a, middle);
	check(ledger_cost_until(a, a->started_ms) == 0);
	check(share >= 0 && share <= a->cost_nanousd);
}

static void check_account(const struct ledger_account *a, int64_t now_ms)
{
	bool starts = a->started_ms != LEDGER_ABSENT, ends = a->ended_ms != LEDGER_ABSENT;
	check(starts || ends);
	check(ends == (a->end_kind != LEDGER_OPEN));
	check((a->runtime_ms != LEDGER_ABSENT) == (starts && ends));
	check(a->cost_nanousd == LEDGER_ABSENT || (ends && a->cost_nanousd >= 0));
	check((a->cost_nanousd == LEDGER_ABSENT) == (a->cost_source == LEDGER_COST_UNKNOWN));
	check(!ends || a->due_ms == LEDGER_ABSENT);
	check(a->due_ms == LEDGER_ABSENT || (a->due_ms >= a->started_ms && a->due_ms > now_ms));
	if (!starts || !ends)
		return;
	check(a->ended_ms >= a->started_ms && a->runtime_ms == a->ended_ms - a->started_ms);
	check_shares(a);
}

static int64_t add(int64_t a, int64_t b)
{
	int64_t sum;
	return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static void check_totals(const struct ledger_sandbox *s, size_t n)
{
	struct ledger_totals sum = { 0 };
	size_t n_open = 0;
	for (size_t i = 0; i < n; i++) {
		const struct ledger_account *a = &s->runs[i].account;
		n_open += a->ended_ms == LEDGER_ABSENT;
		if (a->runtime_ms != LEDGER_ABSENT)
			sum.runtime_ms = add(sum.runtime_ms, a->runtime_ms);
		if (a->cost_nanousd != LEDGER_ABSENT)
			sum.cost_nanousd = add(sum.cost_nanousd, a->cost_nanousd);
		else
			sum.unknown_cost += a->ended_ms != LEDGER_ABSENT;
	}
	check(s->totals.runs == (int64_t)n && s->totals.runtime_ms == sum.runtime_ms);
	check(s->totals.cost_nanousd == sum.cost_nanousd);
	check(s->totals.unknown_cost == sum.unknown_cost);
	check(n_open <= 1); /* the next start ends the one before */
	check((s->totals.state == LEDGER_KILLED) == (s->killed.mark.seq != 0));
	check(s->totals.state != LEDGER_RUNNING || n_open == 1);
}

static void check_sound(const struct history *h, const struct ledger_sandbox *s, int64_t now_ms)
{
	size_t n = count_runs(s);
	check(n <= h->n);
	for (size_t i = 0; i < n; i++) {
		const struct ledger_account *a = &s->runs[i].account;
		check_account(a, now_ms);
		for (size_t j = 0; j < i; j++)
			check(strcmp(s->runs[i].id, s->runs[j].id) != 0);
		if (a->started_ms != LEDGER_ABSENT)
			check(ledger_run_at(s, a->started_ms) != NULL);
	}
	check_totals(s, n);
}

/* --- sums --- */

static bool can_be_booked(const struct ledger_account *a)
{
	return a->runtime_ms == LEDGER_ABSENT || a->runtime_ms <= BOOKED_MS_MAX;
}

static bool book(struct storage *store, const struct ledger_sandbox *s, int sign)
{
	int r = 0;
	for (size_t i = 0; i < s->n_runs && r == 0; i++) {
		if (!s->runs[i].gone && can_be_booked(&s->runs[i].account))
			r = storage_sqlite_book_run(store, &s->runs[i].account, sign);
	}
	check(r == 0 || r == -ERANGE);
	return r == 0;
}

/* The store has no database: a flush works only where nothing is left to write. */
static void check_booking(const struct ledger_sandbox *was, const struct ledger_sandbox *is)
{
	static struct storage store;
	if (book(&store, was, 1) && book(&store, was, -1) && book(&store, is, 1) &&
	    book(&store, is, -1))
		check(storage_sqlite_rollup_flush(&store) == 0);
	else
		storage_sqlite_rollup_forget(&store);
}

static void check_closed_stays(const struct ledger_sandbox *was, const struct ledger_sandbox *is)
{
	size_t n = count_runs(was);
	for (size_t i = 0; i < n; i++) {
		const struct ledger_run *run = NULL;
		for (size_t j = 0; j < is->n_runs; j++)
			if (strcmp(is->runs[j].id, was->runs[i].id) == 0 && !is->runs[j].gone)
				run = &is->runs[j];
		check(run != NULL);
		if (was->runs[i].account.ended_ms != LEDGER_ABSENT)
			check_same_account(&run->account, &was->runs[i].account);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct history h;
	struct fuzz_input in = { data, size };
	struct ledger_sandbox one, other;
	take_history(&h, &in);
	fold(&h, &one);
	fold_otherwise(&h, &other);
	check_sound(&h, &one, h.now_ms);
	check_same(&one, &other);
	settle(&h, &other, h.now_ms + 86400000);
	check_sound(&h, &other, h.now_ms + 86400000);
	check_closed_stays(&one, &other);
	check_booking(&one, &other);
	ledger_sandbox_finish(&one);
	ledger_sandbox_finish(&other);
	return 0;
}
