/* A disk that fails anywhere: for every n, the nth call of a kind fails, once or until somebody
 * mends it. Nothing acknowledged is lost, what is not stored is refused as 503 and shows in the
 * health figures, the writer finds back by itself, the ledger is what a rebuild makes of the log, no
 * descriptor is left open.
 *
 * Every second life also loses its power at the end. `test_faults --stride N --from N` goes through
 * other n; HOOKD_LONG=1: every one.
 */
#include "life.h"

#include <dirent.h>

#ifdef __SANITIZE_ADDRESS__
static long stride = 101;
#else
static long stride = 29;
#endif
static long from; /* 1 ... stride */

static void begin_disk_fault(const struct life_fault *fault, long n, bool stays)
{
	disk_break_only(fault->kinds, n, fault->error, stays);
}

static long count_failed(void)
{
	return atomic_load(&disk.failed);
}

#define ON_DISK(name, kinds, error)                                                                \
	{                                                                                          \
		name, begin_disk_fault, disk_mend, count_failed, NULL, kinds, error                \
	}

static const struct life_fault faults[] = {
	ON_DISK("reads", DISK_READS, EIO),
	ON_DISK("writes", DISK_WRITES, EIO),
	ON_DISK("no room", DISK_WRITES, ENOSPC),
	ON_DISK("short writes", DISK_WRITES | DISK_SHORT, ENOSPC),
	ON_DISK("syncs", DISK_SYNCS, EIO),
	ON_DISK("locks held by others", DISK_LOCKS, EAGAIN),
	ON_DISK("locks", DISK_LOCKS, EIO),
	ON_DISK("opening", DISK_OPENS, EMFILE),
	ON_DISK("sizes", DISK_SIZES, EIO),
	ON_DISK("maps", DISK_MAPS, ENOMEM),
	ON_DISK("removals", DISK_REMOVALS, EIO),
};

static int count_descriptors(void)
{
	int n = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static struct life life; /* the one that runs: tell_life() looks at it */
static long life_n; /* 0: none */
static int kept_stderr = -1;

static int tell_life(void **state)
{
	if (kept_stderr >= 0)
		free(end_listening(kept_stderr));
	kept_stderr = -1;
	if (life_n)
		print_error("%s, call %ld failing %s, in step \"%s\", failed first in \"%s\"\n",
			    life.fault->name, life_n, life.stays ? "from then on" : "once", life.step,
			    life.failed_in ? life.failed_in : "none");
	life_n = 0;
	disk_unwatch();
	disk_mend();
	return 0;
}

/* What was acknowledged is there in both worlds: as the kernel has it, and as the disk may. */
static void judge_both(struct life *l, struct world *left)
{
	life_judge(l, l->world);
	if (!left)
		return;
	open_store(left);
	assert_int_equal(orders_lost(&l->orders, left), 0);
	begin_ledger(left, LIFE_CONFIG);
	(void)fold_all(left);
	expect_sound(left);
}

/* False: it was over before the nth call. */
static bool live_once(const struct life_fault *fault, long n, bool stays, long *refused)
{
	int descriptors = count_descriptors();
	life_n = n;
	life_init(&life, fault, stays);
	kept_stderr = begin_listening();
	life_run(&life, n);
	free(end_listening(kept_stderr));
	kept_stderr = -1;
	judge_both(&life, NULL);
	bool has_failed = life.failed_in;
	*refused += life.n_refused > 0;
	life_finish(&life);
	assert_int_equal(count_descriptors(), descriptors);
	life_n = 0;
	return has_failed;
}

static void survives_a_disk_that_fails(bool stays)
{
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		long lives = 0, refused = 0, n = from;
		while (live_once(&faults[i], n, stays, &refused)) {
			lives++;
			n += stride;
		}
		print_message("%s, %s: %ld calls, %ld lives, %ld with a start or delivery refused\n",
			      faults[i].name, stays ? "from then on" : "once", n, lives, refused);
	}
}

static void survives_a_disk_that_fails_once(void **state)
{
	survives_a_disk_that_fails(false);
}

static void survives_a_disk_that_fails_until_it_is_mended(void **state)
{
	survives_a_disk_that_fails(true);
}

int main(int argc, char **argv)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* which takes time */
	const char *is_long = getenv("HOOKD_LONG");
	if (is_long && strcmp(is_long, "1") == 0)
		stride = 1;
	from = 0;
	for (int i = 1; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "--stride") == 0)
			stride = strtol(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--from") == 0)
			from = strtol(argv[i + 1], NULL, 10);
	if (from == 0)
		from = 1 + (long)(time(NULL) % stride);
	print_message("every %ld-th call from %ld\n", stride, from);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(survives_a_disk_that_fails_once, tell_life),
		cmocka_unit_test_teardown(survives_a_disk_that_fails_until_it_is_mended, tell_life),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
