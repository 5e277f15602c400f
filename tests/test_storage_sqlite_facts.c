/* Facts as blobs: whatever a sandbox or a run holds comes back as it was, beside the same row; a
 * blob that is cut or damaged is refused or read as other numbers, and breaks nothing.
 */
#include "storage_sqlite_facts.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MS INT64_C(1795165200123) /* 2026-11-20T09:00:00.123Z */
#define NS (MS * 1000000 + 456789)
#define LATEST_MS INT64_C(9214646399999) /* of any event */
#define ROUNDS 20000

static uint64_t state_of_chance;

static uint64_t draw(void)
{
	uint64_t x = (state_of_chance += UINT64_C(0x9e3779b97f4a7c15));
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* One of: what is shown, near it, small, anything up to `max`. */
static int64_t near_up_to(int64_t shown, int64_t max)
{
	switch (draw() % 4) {
	case 0:
		return base_max_i64(shown, 0);
	case 1:
		return base_max_i64(base_max_i64(shown, 0) + (int64_t)(draw() % 2001) - 1000, 0);
	case 2:
		return (int64_t)(draw() % 5);
	default:
		return (int64_t)(draw() % (uint64_t)max);
	}
}

static int64_t near(int64_t shown)
{
	return near_up_to(shown, INT64_C(1) << 62);
}

static int64_t near_ms(int64_t shown)
{
	return near_up_to(shown, LATEST_MS);
}

static int64_t near_or_absent(int64_t shown)
{
	return draw() % 8 == 0 ? LEDGER_ABSENT : near(shown);
}

static int64_t near_ms_or_absent(int64_t shown)
{
	return draw() % 8 == 0 ? LEDGER_ABSENT : near_ms(shown);
}

static struct ledger_mark a_mark(int64_t ns)
{
	return (struct ledger_mark) { near(ns), (int64_t)(draw() % 100000000) + 1 };
}

static struct ledger_dims dims_near(const struct ledger_dims *shown)
{
	return (struct ledger_dims) { near(shown->source_key), near(shown->template_key),
				      near(shown->team_key) };
}

static struct ledger_account an_account(void)
{
	int64_t started_ms = near_ms_or_absent(MS);
	int64_t ended_ms = near_ms_or_absent(MS + 5000);
	return (struct ledger_account) {
		.exists = draw() % 8 != 0 && (started_ms != LEDGER_ABSENT || ended_ms >= 0),
		.started_ms = started_ms,
		.ended_ms =
			ended_ms == LEDGER_ABSENT ? ended_ms : base_max_i64(started_ms, ended_ms),
		.kill_reason_key = near(3),
		.dims = { near(1), near(2), near(3) },
		.vcpu_count = near_or_absent(2),
		.memory_mb = near_or_absent(512),
	};
}

static void fill_end(struct ledger_fact *end, const struct ledger_account *a)
{
	end->mark = a_mark(NS);
	end->kind = draw() % 2 ? EVENT_PAUSED : EVENT_KILLED;
	end->dims = dims_near(&a->dims);
	end->kill_reason_key = near(a->kill_reason_key);
	end->report.present = draw() % 2;
	if (!end->report.present)
		return;
	end->report.started_unix_ms = near_ms(a->started_ms);
	end->report.duration_ms = near_ms(5000);
	end->report.vcpu_count = near_or_absent(a->vcpu_count);
	end->report.memory_mb = near_or_absent(a->memory_mb);
}

static struct ledger_run a_run(const struct ledger_account *a)
{
	static const enum event_kind starts[] = { EVENT_CREATED, EVENT_RESUMED, EVENT_FORKED };
	struct ledger_run run = { .named = draw() % 2 };
	run.start.timeout_ms = run.end.timeout_ms = run.timeout.timeout_ms = LEDGER_ABSENT;
	run.timeout.kind = EVENT_UPDATED;
	if (draw() % 4) {
		run.start.mark = a_mark(NS);
		run.start.kind = starts[draw() % 3];
		run.start.dims = dims_near(&a->dims);
	}
	if (draw() % 4)
		fill_end(&run.end, a);
	if (draw() % 4 == 0) {
		run.timeout.mark = a_mark(NS);
		run.timeout.timeout_ms = near_ms(MS);
	}
	return run;
}

#define SAME(a, b, field) assert_int_equal((a)->field, (b)->field)

static void expect_same_mark(struct ledger_mark a, struct ledger_mark b)
{
	SAME(&a, &b, time_ns);
	SAME(&a, &b, seq);
}

static void expect_same_fact(const struct ledger_fact *a, const struct ledger_fact *b)
{
	expect_same_mark(a->mark, b->mark);
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

static struct span span_of(const uint8_t *bytes, size_t len)
{
	return (struct span) { (const char *)bytes, len };
}

/* In memory of its own length, so that a sanitizer sees each byte read beyond it. */
static int read_run(const uint8_t *bytes, size_t len, const struct ledger_account *a,
		    struct ledger_run *ret)
{
	CLEANUP_FREE uint8_t *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, bytes, len);
	*ret = (struct ledger_run) { 0 };
	return storage_sqlite_facts_get_run(span_of(copy, len), a, ret);
}

static int read_sandbox(const uint8_t *bytes, size_t len, const struct storage_facts_shown *shown,
			struct ledger_sandbox *ret)
{
	CLEANUP_FREE uint8_t *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, bytes, len);
	ledger_sandbox_init(ret);
	return storage_sqlite_facts_get_sandbox(span_of(copy, len), shown, ret);
}

static void gives_back_the_facts_of_any_run(void **state)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct ledger_account a = an_account();
		struct ledger_run run = a_run(&a), read;
		uint8_t bytes[STORAGE_FACTS_MAX];
		size_t len = storage_sqlite_facts_put_run(&run, &a, bytes);
		assert_int_equal(read_run(bytes, len, &a, &read), 0);
		SAME(&read, &run, named);
		expect_same_fact(&read.start, &run.start);
		expect_same_fact(&read.end, &run.end);
		expect_same_fact(&read.timeout, &run.timeout);
	}
}

static struct storage_facts_shown a_row(void)
{
	return (struct storage_facts_shown) {
		.time_ms = MS - MS % 1000,
		.last_ms = near_ms(MS),
		.dims = { near(1), near(2), near(3) },
		.kill_reason_key = near(4),
	};
}

static struct ledger_mark latest_or_other(struct ledger_mark last)
{
	switch (draw() % 3) {
	case 0:
		return (struct ledger_mark) { 0 };
	case 1:
		return last;
	default:
		return a_mark(NS);
	}
}

static struct ledger_sandbox a_sandbox(const struct storage_facts_shown *shown)
{
	struct ledger_sandbox x;
	ledger_sandbox_init(&x);
	x.names_run = draw() % 2;
	x.first_event_ms = near_ms_or_absent(shown->time_ms);
	x.last = a_mark((int64_t)((uint64_t)shown->last_ms * 1000000));
	x.last_source_key = near(shown->dims.source_key);
	x.template_mark = latest_or_other(x.last);
	x.team_mark = latest_or_other(x.last);
	x.metadata_mark = latest_or_other(x.last);
	x.startup_mark = latest_or_other(x.last);
	x.killed.mark = latest_or_other(x.last);
	x.killed.kind = EVENT_KILLED;
	x.template_key = x.template_mark.seq ? near(shown->dims.template_key) : 0;
	x.team_key = x.team_mark.seq ? near(shown->dims.team_key) : 0;
	x.killed.dims.source_key = x.killed.mark.seq ? near(x.last_source_key) : 0;
	x.killed.kill_reason_key = x.killed.mark.seq ? near(shown->kill_reason_key) : 0;
	return x;
}

static void gives_back_the_facts_of_any_sandbox(void **state)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct storage_facts_shown shown = a_row();
		struct ledger_sandbox x = a_sandbox(&shown), read;
		uint8_t bytes[STORAGE_FACTS_MAX];
		size_t len = storage_sqlite_facts_put_sandbox(&x, &shown, bytes);
		assert_int_equal(read_sandbox(bytes, len, &shown, &read), 0);
		SAME(&read, &x, names_run);
		SAME(&read, &x, first_event_ms);
		expect_same_mark(read.last, x.last);
		SAME(&read, &x, last_source_key);
		expect_same_mark(read.template_mark, x.template_mark);
		SAME(&read, &x, template_key);
		expect_same_mark(read.team_mark, x.team_mark);
		SAME(&read, &x, team_key);
		expect_same_mark(read.metadata_mark, x.metadata_mark);
		expect_same_mark(read.startup_mark, x.startup_mark);
		expect_same_fact(&read.killed, &x.killed);
	}
}

static void takes_few_bytes_for_what_is_usual(void **state)
{
	struct ledger_account a = {
		.exists = true,
		.started_ms = MS,
		.ended_ms = MS + 600000,
		.dims = { 1, 2, 3 },
		.vcpu_count = 2,
		.memory_mb = 512,
	};
	struct ledger_run run = {
		.named = true,
		.start = { .mark = { NS, 1000000 }, .kind = EVENT_CREATED, .dims = a.dims },
		.end = { .mark = { NS + INT64_C(600000000000), 1000040 },
			 .kind = EVENT_KILLED,
			 .dims = a.dims,
			 .report = { true, MS, 600000, 2, 512 } },
	};
	uint8_t bytes[STORAGE_FACTS_MAX];
	assert_true(storage_sqlite_facts_put_run(&run, &a, bytes) <= 12);
}

static void refuses_facts_that_end_early_or_go_on(void **state)
{
	for (int i = 0; i < ROUNDS / 20; i++) {
		struct ledger_account a = an_account();
		struct ledger_run run = a_run(&a), read;
		struct storage_facts_shown shown = a_row();
		struct ledger_sandbox x = a_sandbox(&shown), read_x;
		uint8_t bytes[STORAGE_FACTS_MAX + 1] = { 0 };
		size_t len = storage_sqlite_facts_put_run(&run, &a, bytes);
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(read_run(bytes, cut, &a, &read), -EUCLEAN);
		bytes[len] = 0;
		assert_int_equal(read_run(bytes, len + 1, &a, &read), -EUCLEAN);
		len = storage_sqlite_facts_put_sandbox(&x, &shown, bytes);
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(read_sandbox(bytes, cut, &shown, &read_x), -EUCLEAN);
		bytes[len] = 0;
		assert_int_equal(read_sandbox(bytes, len + 1, &shown, &read_x), -EUCLEAN);
	}
}

static void refuses_flags_and_numbers_that_nobody_writes(void **state)
{
	struct ledger_account a = an_account();
	struct ledger_run run;
	static const uint8_t unknown_flag[] = { 0x80, 0x80, 0x80, 0x80, 0x01 };
	static const uint8_t too_long[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					    0xff, 0xff, 0xff, 0xff, 0x01 };
	static const uint8_t too_large[] = { 0xff, 0xff, 0xff, 0xff, 0xff,
					     0xff, 0xff, 0xff, 0xff, 0x02 };
	assert_int_equal(read_run(unknown_flag, sizeof(unknown_flag), &a, &run), -EUCLEAN);
	assert_int_equal(read_run(too_long, sizeof(too_long), &a, &run), -EUCLEAN);
	assert_int_equal(read_run(too_large, sizeof(too_large), &a, &run), -EUCLEAN);
}

static void refuses_rows_and_facts_of_what_cannot_be(void **state)
{
	const struct ledger_account sound = { .exists = true, .started_ms = MS, .ended_ms = MS };
	struct ledger_account a[] = { sound, sound, sound, sound, sound, sound };
	struct ledger_run run = { .named = true,
				  .start = { .mark = { NS, 1 }, .kind = EVENT_CREATED } };
	uint8_t bytes[STORAGE_FACTS_MAX];
	size_t len = storage_sqlite_facts_put_run(&run, &sound, bytes);
	assert_int_equal(read_run(bytes, len, &sound, &run), 0);
	a[0].ended_ms = MS - 1;
	a[1].ended_ms = INT64_MAX;
	a[2].started_ms = -1;
	a[3].cost_nanousd = -1;
	a[4].dims.team_key = -1;
	a[5].started_ms = a[5].ended_ms = LEDGER_ABSENT;
	for (size_t i = 0; i < ARRAY_SIZE(a); i++)
		assert_int_equal(read_run(bytes, len, &a[i], &run), -EUCLEAN);
	for (int i = 0; i < 3; i++) {
		run = (struct ledger_run) { .start = { .mark = { NS, 1 } } };
		*(i == 0   ? &run.start.mark.time_ns
		  : i == 1 ? &run.start.mark.seq
			   : &run.start.dims.source_key) = -1;
		len = storage_sqlite_facts_put_run(&run, &sound, bytes);
		assert_int_equal(read_run(bytes, len, &sound, &run), -EUCLEAN);
	}
}

static void survives_any_damage(void **state)
{
	int refused = 0;
	for (int i = 0; i < ROUNDS; i++) {
		struct ledger_account a = an_account();
		struct ledger_run run = a_run(&a), read;
		struct storage_facts_shown shown = a_row();
		struct ledger_sandbox x = a_sandbox(&shown), read_x;
		uint8_t bytes[STORAGE_FACTS_MAX];
		size_t len = storage_sqlite_facts_put_run(&run, &a, bytes);
		bytes[draw() % len] = (uint8_t)draw();
		refused += read_run(bytes, len, &a, &read) == -EUCLEAN;
		if (read.start.mark.seq)
			assert_true(event_kind_starts_run(read.start.kind));
		len = storage_sqlite_facts_put_sandbox(&x, &shown, bytes);
		bytes[draw() % len] = (uint8_t)draw();
		refused += read_sandbox(bytes, len, &shown, &read_x) == -EUCLEAN;
	}
	assert_true(refused > ROUNDS / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_back_the_facts_of_any_run),
		cmocka_unit_test(gives_back_the_facts_of_any_sandbox),
		cmocka_unit_test(takes_few_bytes_for_what_is_usual),
		cmocka_unit_test(refuses_facts_that_end_early_or_go_on),
		cmocka_unit_test(refuses_flags_and_numbers_that_nobody_writes),
		cmocka_unit_test(refuses_rows_and_facts_of_what_cannot_be),
		cmocka_unit_test(survives_any_damage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
