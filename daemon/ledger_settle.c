/* Settling: which facts belong to which run.
 *
 * Everything is derived afresh from the facts, in time order, so that the result is a function of
 * the facts alone. Where no event names a run, loose facts form runs by one walk over them. Where
 * one does, they form none: they lend a start or an end to a run that lacks it, as far as that
 * overlaps with nothing that is known. Loose timeouts go to the run whose turn it was. At one
 * instant the end of an earlier run comes before the start of the next: clocks of whole seconds
 * must not decide about money by the order of random ids.
 */
#include "ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_internal.h"

static void finish_work(struct ledger_work *work)
{
	free(work->loose);
	free(work->runs);
}

static int compare_int64(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

/* Loose facts in time order ------------------------------------------------------------------- */

static int by_mark(const void *a, const void *b, void *sandbox)
{
	const struct ledger_fact *const *x = a, *const *y = b;
	return ledger_mark_compare(sandbox, (*x)->mark, (*y)->mark);
}

static int sort_loose(struct ledger_sandbox *sandbox, struct ledger_work *work)
{
	work->loose = calloc(sandbox->n_loose + 1, sizeof(struct ledger_fact *));
	if (!work->loose)
		return -ENOMEM;
	for (size_t i = 0; i < sandbox->n_loose; i++)
		work->loose[i] = &sandbox->loose[i];
	work->n_loose = sandbox->n_loose;
	qsort_r(work->loose, work->n_loose, sizeof(struct ledger_fact *), by_mark, sandbox);
	return 0;
}

/* Runs from loose facts ----------------------------------------------------------------------- */

static struct ledger_work_run *add_run(struct ledger_work *work, const struct ledger_fact *start,
				       const struct ledger_fact *end)
{
	struct ledger_work_run *run = &work->runs[work->n_runs];
	*run = (struct ledger_work_run) { .index = work->n_runs, .start = start, .end = end };
	work->n_runs++;
	ledger_account_begin(run);
	return run;
}

static struct ledger_work_run *last_run(struct ledger_work *work)
{
	return work->n_runs ? &work->runs[work->n_runs - 1] : NULL;
}

static bool is_open(const struct ledger_work_run *run)
{
	return run && !run->end;
}

/* The first end ends the open run. Without one, a report tells of a run whose start was lost; but
 * if it begins before the last run ended, it tells of that run again, and later words win. */
static void take_end(struct ledger_work *work, const struct ledger_fact *end)
{
	struct ledger_work_run *last = last_run(work);
	bool again =
		last && end->report.present && end->report.started_unix_ms < last->account.ended_ms;
	if (is_open(last) || again) {
		last->end = end;
		ledger_account_begin(last);
	} else if (end->report.present) {
		(void)add_run(work, NULL, end);
	}
}

/* A start told again before anything else happened. */
static bool repeats_start(const struct ledger_work_run *last, const struct ledger_fact *start)
{
	return is_open(last) && last->start &&
	       ledger_ms(last->start->mark.time_ns) == ledger_ms(start->mark.time_ns);
}

static void take_start(struct ledger_work *work, const struct ledger_fact *start)
{
	struct ledger_work_run *last = last_run(work);
	if (!repeats_start(last, start)) {
		(void)add_run(work, start, NULL);
		return;
	}
	last->start = start;
	ledger_account_begin(last);
}

static void take_all(struct ledger_work *work, size_t from, size_t to,
		     bool (*of_kind)(enum event_kind))
{
	for (size_t i = from; i < to; i++) {
		const struct ledger_fact *fact = work->loose[i];
		if (!of_kind(fact->kind))
			continue;
		if (event_kind_starts_run(fact->kind))
			take_start(work, fact);
		else
			take_end(work, fact);
	}
}

static int by_started(const void *a, const void *b)
{
	const struct ledger_work_run *x = a, *y = b;
	int order = compare_int64(x->account.started_ms, y->account.started_ms);
	return order ? order : (x->index > y->index) - (x->index < y->index);
}

static int by_begin(const void *a, const void *b)
{
	const struct ledger_work_run *x = a, *y = b;
	int order = compare_int64(x->begin_ns, y->begin_ns);
	return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* Runs of one start would have one id: they are one run told twice, the later telling counts. */
static void drop_repeats(struct ledger_work *work)
{
	size_t n = 0;
	qsort(work->runs, work->n_runs, sizeof(*work->runs), by_started);
	for (size_t i = 0; i < work->n_runs; i++) {
		if (n && work->runs[n - 1].account.started_ms == work->runs[i].account.started_ms)
			n--;
		work->runs[n++] = work->runs[i];
	}
	work->n_runs = n;
	qsort(work->runs, work->n_runs, sizeof(*work->runs), by_begin);
}

static void collect_loose(struct ledger_work *work)
{
	size_t from = 0, to;
	for (; from < work->n_loose; from = to) {
		for (to = from + 1; to < work->n_loose; to++) {
			if (work->loose[to]->mark.time_ns != work->loose[from]->mark.time_ns)
				break;
		}
		bool ends_first = is_open(last_run(work));
		take_all(work, from, to, ends_first ? event_kind_ends_run : event_kind_starts_run);
		take_all(work, from, to, ends_first ? event_kind_starts_run : event_kind_ends_run);
	}
	drop_repeats(work);
}

/* Named runs ---------------------------------------------------------------------------------- */

static const struct ledger_fact *fact_or_null(const struct ledger_fact *fact)
{
	return fact->mark.seq ? fact : NULL;
}

static int by_id(const void *a, const void *b, void *sandbox)
{
	const struct ledger_work_run *x = a, *y = b;
	const struct ledger_sandbox *s = sandbox;
	return strcmp(s->runs[x->index].id, s->runs[y->index].id);
}

static int by_begin_and_id(const void *a, const void *b, void *sandbox)
{
	const struct ledger_work_run *x = a, *y = b;
	int order = compare_int64(x->begin_ns, y->begin_ns);
	return order ? order : by_id(a, b, sandbox);
}

/* On the time line of the named runs, to see which loose start is free for a run that lacks one.
 * The ranks are the order at one instant. */
struct point {
	int64_t at_ns;
	enum { POINT_END, POINT_LOOSE_START, POINT_START } rank;
	size_t tie;
	struct ledger_work_run *run;
	const struct ledger_fact *start; /* loose */
	bool spans; /* start and end of this run are known, and apart */
};

static int by_point(const void *a, const void *b)
{
	const struct point *x = a, *y = b;
	int order = compare_int64(x->at_ns, y->at_ns);
	if (order == 0)
		order = (x->rank > y->rank) - (x->rank < y->rank);
	return order ? order : (x->tie > y->tie) - (x->tie < y->tie);
}

static int64_t end_ns(const struct ledger_work_run *run)
{
	int64_t ns;
	if (!run->account.exists || !run->end->report.present)
		return run->end->mark.time_ns;
	return __builtin_mul_overflow(run->account.ended_ms, CLOCK_NS_PER_MS, &ns) ? INT64_MAX : ns;
}

static size_t lay_out(const struct ledger_work *work, struct point *points)
{
	size_t n = 0;
	for (size_t i = 0; i < work->n_runs; i++) {
		struct ledger_work_run *run = &work->runs[i];
		struct point p = { .tie = i, .run = run };
		p.spans = run->account.exists && run->end && end_ns(run) > run->begin_ns;
		if (run->account.exists) {
			p.at_ns = run->begin_ns;
			p.rank = POINT_START;
			points[n++] = p;
		}
		if (run->end) {
			p.at_ns = end_ns(run);
			p.rank = POINT_END;
			points[n++] = p;
		}
	}
	for (size_t i = 0; i < work->n_loose; i++) {
		const struct ledger_fact *fact = work->loose[i];
		if (event_kind_starts_run(fact->kind))
			points[n++] = (struct point) {
				fact->mark.time_ns, POINT_LOOSE_START, i, NULL, fact, false
			};
	}
	qsort(points, n, sizeof(*points), by_point);
	return n;
}

/* The last loose start at the very instant of an end; NULL if a run of its own starts there too. */
static const struct ledger_fact *start_at(const struct point *points, size_t n, size_t end)
{
	const struct ledger_fact *found = NULL;
	for (size_t i = end + 1; i < n && points[i].at_ns == points[end].at_ns; i++) {
		if (points[i].rank == POINT_START)
			return NULL;
		if (points[i].rank == POINT_LOOSE_START)
			found = points[i].start;
	}
	return found;
}

static void lend_starts(const struct point *points, size_t n)
{
	const struct ledger_fact *free_start =
		NULL; /* the latest that nothing has happened since */
	size_t n_spanning = 0; /* runs with start and end that are going on here */
	for (size_t i = 0; i < n; i++) {
		struct ledger_work_run *run = points[i].run;
		switch (points[i].rank) {
		case POINT_LOOSE_START:
			if (n_spanning == 0)
				free_start = points[i].start;
			break;
		case POINT_START:
			free_start = NULL;
			n_spanning += points[i].spans;
			break;
		case POINT_END:
			n_spanning -= points[i].spans;
			if (!run->account.exists) {
				if (!free_start && n_spanning == 0)
					free_start = start_at(points, n, i);
				run->start = free_start;
				ledger_account_begin(run);
			}
			free_start = NULL;
			break;
		}
	}
}

static int adopt_starts(struct ledger_work *work)
{
	CLEANUP_FREE struct point *points =
		calloc(2 * work->n_runs + work->n_loose + 1, sizeof(*points));
	if (!points)
		return -ENOMEM;
	lend_starts(points, lay_out(work, points));
	return 0;
}

/* Each loose end goes to one run: the first that began before it, has no end of its own, and was
 * not followed by another run yet. */
static void adopt_ends(struct ledger_work *work)
{
	size_t n = 0;
	for (size_t i = 0; i < work->n_runs; i++) {
		struct ledger_work_run *run = &work->runs[i];
		if (run->end)
			continue;
		while (n < work->n_loose && (!event_kind_ends_run(work->loose[n]->kind) ||
					     work->loose[n]->mark.time_ns < run->begin_ns))
			n++;
		if (n == work->n_loose)
			return;
		if (i + 1 < work->n_runs &&
		    work->loose[n]->mark.time_ns > work->runs[i + 1].begin_ns)
			continue;
		run->end = work->loose[n++];
		ledger_account_begin(run);
	}
}

static int collect_named(struct ledger_sandbox *sandbox, struct ledger_work *work)
{
	for (size_t i = 0; i < sandbox->n_runs; i++) {
		const struct ledger_run *run = &sandbox->runs[i];
		if (!run->named)
			continue;
		struct ledger_work_run *added =
			add_run(work, fact_or_null(&run->start), fact_or_null(&run->end));
		added->index = i;
		added->timeout = fact_or_null(&run->timeout);
	}
	qsort_r(work->runs, work->n_runs, sizeof(*work->runs), by_id, sandbox);
	int r = work->n_loose ? adopt_starts(work) : 0;
	if (r < 0)
		return r;
	size_t n = 0;
	for (size_t i = 0; i < work->n_runs; i++) {
		if (work->runs[i].account.exists)
			work->runs[n++] = work->runs[i];
		else if (work->runs[i].end)
			work->n_ended_only++;
	}
	work->n_runs = n;
	qsort_r(work->runs, work->n_runs, sizeof(*work->runs), by_begin_and_id, sandbox);
	adopt_ends(work);
	return 0;
}

static void give_timeouts(struct ledger_work *work)
{
	size_t n = 0;
	for (size_t i = 0; i < work->n_runs; i++) {
		struct ledger_work_run *run = &work->runs[i];
		const struct ledger_fact *latest = NULL;
		for (; n < work->n_loose; n++) {
			const struct ledger_fact *fact = work->loose[n];
			if (i + 1 < work->n_runs &&
			    fact->mark.time_ns >= work->runs[i + 1].begin_ns)
				break;
			if (fact->timeout_ms != LEDGER_ABSENT &&
			    fact->mark.time_ns >= run->begin_ns)
				latest = fact;
		}
		if (latest && (!run->timeout || ledger_mark_compare(work->sandbox, latest->mark,
								    run->timeout->mark) > 0))
			run->timeout = latest;
	}
}

/* Results ------------------------------------------------------------------------------------- */

static void publish_named(struct ledger_sandbox *sandbox, const struct ledger_work *work)
{
	struct ledger_work_run none = { 0 };
	ledger_account_begin(&none);
	for (size_t i = 0; i < sandbox->n_runs; i++) {
		struct ledger_run *run = &sandbox->runs[i];
		run->gone = !run->named;
		run->account = none.account;
		if (run->named && run->end.mark.seq)
			ledger_account_ended_only(work, &run->end, &run->account);
	}
	for (size_t i = 0; i < work->n_runs; i++)
		sandbox->runs[work->runs[i].index].account = work->runs[i].account;
}

static void set_fact(struct ledger_run *run, struct ledger_fact *slot,
		     const struct ledger_fact *fact)
{
	if (slot->mark.seq != (fact ? fact->mark.seq : 0))
		run->facts_changed = true;
	*slot = fact ? *fact : (struct ledger_fact) { .timeout_ms = LEDGER_ABSENT };
}

static int by_run_id(const void *a, const void *b)
{
	const struct ledger_run *x = a, *y = b;
	return strcmp(x->id, y->id);
}

static void publish_loose_run(struct ledger_sandbox *sandbox, const struct ledger_work_run *from,
			      size_t n_known)
{
	struct ledger_run key;
	char text[CLOCK_TEXT_MAX];
	int len = snprintf(key.id, sizeof(key.id), "%s@%s", sandbox->id,
			   clock_format_ms(from->account.started_ms, text));
	assert(len > 0 && (size_t)len < sizeof(key.id));
	struct ledger_run *run = NULL;
	if (n_known)
		run = bsearch(&key, sandbox->runs, n_known, sizeof(*run), by_run_id);
	if (!run)
		run = ledger_append_run(sandbox, (struct span) { key.id, (size_t)len }, false);
	run->gone = false;
	run->account = from->account;
	set_fact(run, &run->start, from->start);
	set_fact(run, &run->end, from->end);
	set_fact(run, &run->timeout, from->timeout);
}

static int publish_loose(struct ledger_sandbox *sandbox, const struct ledger_work *work)
{
	size_t n_known = sandbox->n_runs;
	int r = ledger_reserve_runs(sandbox, work->n_runs);
	if (r < 0)
		return r;
	if (n_known)
		qsort(sandbox->runs, n_known, sizeof(*sandbox->runs), by_run_id);
	for (size_t i = 0; i < n_known; i++)
		sandbox->runs[i].gone = true;
	for (size_t i = 0; i < work->n_runs; i++)
		publish_loose_run(sandbox, &work->runs[i], n_known);
	return 0;
}

static int by_run_start(const void *a, const void *b)
{
	const struct ledger_run *x = a, *y = b;
	int x_class = x->gone ? 2 : !x->account.exists, y_class = y->gone ? 2 : !y->account.exists;
	int order = x_class - y_class;
	if (order == 0 && x_class == 0)
		order = compare_int64(ledger_account_shown_ms(&x->account),
				      ledger_account_shown_ms(&y->account));
	return order ? order : strcmp(x->id, y->id);
}

static bool has_moved(const struct ledger_run *run)
{
	const struct ledger_account *a = &run->account, *b = &run->stored;
	bool exists = a->exists && !run->gone;
	return exists != b->exists ||
	       (exists && (a->started_ms != b->started_ms || a->ended_ms != b->ended_ms));
}

/* Forgets what was neither stored nor is there any more, and puts the rest in order. */
static void tidy_runs(struct ledger_sandbox *sandbox)
{
	size_t n = 0;
	sandbox->runs_moved = false;
	for (size_t i = 0; i < sandbox->n_runs; i++) {
		const struct ledger_run *run = &sandbox->runs[i];
		if (run->gone && !run->is_stored)
			continue;
		sandbox->runs_moved = sandbox->runs_moved || has_moved(run);
		sandbox->runs[n++] = *run;
	}
	sandbox->n_runs = n;
	if (n)
		qsort(sandbox->runs, n, sizeof(*sandbox->runs), by_run_start);
}

int ledger_settle(struct ledger_sandbox *sandbox, const struct ledger_terms *terms, int64_t now_ms)
{
	CLEANUP(finish_work)
	struct ledger_work work = { .sandbox = sandbox, .terms = terms, .now_ms = now_ms };
	work.runs = calloc(sandbox->n_runs + sandbox->n_loose + 1, sizeof(*work.runs));
	if (!work.runs)
		return -ENOMEM;
	int r = sort_loose(sandbox, &work);
	if (r == 0 && sandbox->names_run)
		r = collect_named(sandbox, &work);
	else if (r == 0)
		collect_loose(&work);
	if (r < 0)
		return r;
	give_timeouts(&work);
	ledger_account_finish(&work);
	if (!sandbox->names_run)
		r = publish_loose(sandbox, &work);
	else
		publish_named(sandbox, &work);
	if (r < 0)
		return r;
	ledger_account_totals(&work, &sandbox->totals);
	tidy_runs(sandbox);
	return 0;
}
