/* A disk that fails anywhere: in the life of a store (life.h) the nth call of a kind fails, once,
 * or with all after it until somebody mends the disk. Nothing acknowledged is lost; what is not
 * stored is answered 503 and shows in the health figures; the writer finds back by itself; the
 * ledger is what a rebuild makes of the log; no descriptor stays open.
 *
 * Some n at random; HOOKD_LONG=1: every one. --seed N --rounds N repeat, --rounds 0 --every N
 * --from N --only KIND go through others.
 */
#include "life.h"

#ifdef __SANITIZE_ADDRESS__
static struct life_plan plan = { .rounds = 3 };
#else
static struct life_plan plan = { .rounds = 10 };
#endif
static long calls_before;

static void begin_disk_fault(const struct life_fault *fault, long n, bool stays)
{
	calls_before = atomic_load(&disk.calls);
	disk_break_only(fault->kinds, n, fault->error, stays);
}

static long count_failed(void)
{
	return atomic_load(&disk.failed);
}

static long count_calls(void)
{
	return atomic_load(&disk.calls) - calls_before;
}

#define ON_DISK(what, which, errno_)                                                               \
	{                                                                                          \
		.name = (what), .kinds = (which), .error = (errno_), .begin = begin_disk_fault,    \
		.end = disk_mend, .failed = count_failed, .calls = count_calls                     \
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

static void survives_a_disk_that_fails_at_any_call(void **state)
{
	life_go_through(&plan, faults, ARRAY_SIZE(faults));
}

int main(int argc, char **argv)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* which takes time */
	life_read_plan(&plan, argc, argv);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(survives_a_disk_that_fails_at_any_call, life_tell),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
