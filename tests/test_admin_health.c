/* Readiness: each reason, at its limit, alone and together. Pure, so time and disks are made up. */
#include "admin_health.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS 1000000

static struct admin_health fine(void)
{
	return (struct admin_health) {
		.writer = {
			.round_mono_ms = NOW_MS - 900,
			.folded_mono_ms = NOW_MS - 900,
			.stored_seq = 10,
			.folded_seq = 10,
			.stats = { .free_bytes = INT64_C(1) << 30 },
		},
		.queue_limit = 100,
		.now_mono_ms = NOW_MS,
	};
}

/* That this reason holds, and no other. */
static void assert_only(const struct admin_health *h, int reason)
{
	for (int i = 0; i < ADMIN_N_REASONS; i++)
		assert_int_equal(admin_health_has(h, (enum admin_reason)i), i == reason);
	assert_int_equal(admin_health_is_ready(h), reason < 0);
}

static void is_ready_when_nothing_is_wrong(void **state)
{
	struct admin_health h = fine();

	assert_only(&h, -1);
}

static void a_failed_commit_counts_until_one_works(void **state)
{
	struct admin_health h = fine();

	h.writer.last_error = -EIO;
	assert_only(&h, ADMIN_COMMIT_FAILED);
	h.writer.last_error = 0;
	assert_only(&h, -1);
}

static void a_writer_that_does_not_come_round_is_stuck(void **state)
{
	struct admin_health h = fine();

	h.writer.round_mono_ms = NOW_MS - ADMIN_HEALTH_ROUND_MAX_MS;
	assert_only(&h, -1);
	h.writer.round_mono_ms--;
	assert_only(&h, ADMIN_WRITER_STUCK);
}

static void a_full_queue_is_one_at_its_limit(void **state)
{
	struct admin_health h = fine();

	h.waiting = 99;
	assert_only(&h, -1);
	h.waiting = 100;
	assert_only(&h, ADMIN_QUEUE_FULL);
	h.waiting = 0;
	h.writer.queued = 100;
	assert_only(&h, ADMIN_QUEUE_FULL);
}

static void a_disk_without_room_counts_and_an_unknown_one_does_not(void **state)
{
	struct admin_health h = fine();

	h.writer.stats.free_bytes = ADMIN_HEALTH_DISK_MIN;
	assert_only(&h, -1);
	h.writer.stats.free_bytes--;
	assert_only(&h, ADMIN_DISK_FULL);
	h.writer.stats.free_bytes = -1;
	assert_only(&h, -1);
}

static void a_ledger_is_stuck_when_it_is_behind_and_does_not_move(void **state)
{
	struct admin_health h = fine();

	h.writer.folded_mono_ms = NOW_MS - ADMIN_HEALTH_FOLD_MAX_MS - 1;
	assert_only(&h, -1); /* nothing to fold */
	h.writer.stored_seq++;
	assert_only(&h, ADMIN_LEDGER_STUCK);
	h.writer.folded_mono_ms++;
	assert_only(&h, -1); /* far behind, but on its way */
}

static void a_daemon_that_stops_is_not_ready(void **state)
{
	struct admin_health h = fine();

	h.stopping = true;
	assert_only(&h, ADMIN_STOPPING);
}

static void the_text_has_a_line_for_each_reason(void **state)
{
	CLEANUP(buffer_finish) struct buffer text = BUFFER_INIT(4096);
	struct admin_health h = fine();

	assert_int_equal(admin_health_text(&h, &text), 0);
	assert_string_equal(text.data, "ready\n");
	buffer_clear(&text);
	h.writer.last_error = -ENOSPC;
	h.writer.stats.free_bytes = 5 * 1024 * 1024;
	h.stopping = true;
	assert_int_equal(admin_health_text(&h, &text), 0);
	assert_string_equal(text.data,
			    "not ready\n"
			    "commit_failed: No space left on device; deliveries are answered 503, "
			    "the log says more\n"
			    "disk_full: 5 MiB free where the store is\n"
			    "stopping: the daemon was told to stop\n");
}

static void every_reason_has_a_name_and_a_text(void **state)
{
	CLEANUP(buffer_finish) struct buffer text = BUFFER_INIT(4096);
	struct admin_health h = fine();
	size_t lines = 0;

	h.writer.last_error = -EIO;
	h.writer.round_mono_ms = h.writer.folded_mono_ms = 0;
	h.writer.stored_seq = 1000;
	h.writer.stats.free_bytes = 0;
	h.waiting = 100;
	h.writer.is_lost = h.writer.is_damaged = true;
	h.stopping = true;
	assert_int_equal(admin_health_text(&h, &text), 0);
	for (const char *at = text.data; (at = strchr(at, '\n')); at++)
		lines++;
	assert_int_equal(lines, 1 + ADMIN_N_REASONS);
	for (int i = 0; i < ADMIN_N_REASONS; i++)
		assert_non_null(strstr(text.data, admin_health_name((enum admin_reason)i)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_ready_when_nothing_is_wrong),
		cmocka_unit_test(a_failed_commit_counts_until_one_works),
		cmocka_unit_test(a_writer_that_does_not_come_round_is_stuck),
		cmocka_unit_test(a_full_queue_is_one_at_its_limit),
		cmocka_unit_test(a_disk_without_room_counts_and_an_unknown_one_does_not),
		cmocka_unit_test(a_ledger_is_stuck_when_it_is_behind_and_does_not_move),
		cmocka_unit_test(a_daemon_that_stops_is_not_ready),
		cmocka_unit_test(the_text_has_a_line_for_each_reason),
		cmocka_unit_test(every_reason_has_a_name_and_a_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
