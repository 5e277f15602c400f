/* Memory that runs out anywhere in the life of a store (life.h), in the writer's thread and in who
 * opens and closes: the same promises as for a disk that fails.
 *
 * A life has about a million allocations: n is drawn at random, for 2,000 lives with HOOKD_LONG=1.
 * --seed N --rounds N repeat, --rounds 0 --every N --from N go through others.
 */
#include "life.h"

#include "memory.h"

#ifdef __SANITIZE_ADDRESS__
static struct life_plan plan = { .rounds = 3, .long_rounds = 500 };
#else
static struct life_plan plan = { .rounds = 8, .long_rounds = 2000 };
#endif

static void begin_memory_fault(const struct life_fault *fault, long n, bool stays)
{
	memory_break(n, stays);
}

static void expose(bool on)
{
	memory_spare(!on);
}

static const struct life_fault faults[] = {
	{ .name = "memory",
	  .begin = begin_memory_fault,
	  .end = memory_mend,
	  .failed = memory_failed,
	  .calls = memory_calls,
	  .expose = expose },
};

static void survives_memory_that_runs_out_at_any_call(void **state)
{
	life_go_through(&plan, faults, ARRAY_SIZE(faults));
}

int main(int argc, char **argv)
{
	memory_install();
	memory_spare(true); /* the test's own */
	life_read_plan(&plan, argc, argv);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(survives_memory_that_runs_out_at_any_call, life_tell),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
