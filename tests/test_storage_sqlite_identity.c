/* The index of event ids keeps up with the log, whatever is missing from the log. */
#include "storage_fixture.h"

static const struct told told = {
	.id = "one",
	.type = "sandbox.created",
	.time = "2026-11-20T09:00:00Z",
	.sandbox = "sb1",
};

/* Retention by size may take events before they are indexed. */
static void moves_on_where_every_event_was_pruned(void **state)
{
	struct world *w = *state;
	close_store(w);
	change(w, "UPDATE position SET folded_seq = 200000");
	open_store(w);
	for (int i = 0; storage_wants_upkeep(w->s); i++) {
		assert_true(i < 100);
		assert_int_equal(storage_maintain(w->s), 0);
	}
	tell(w, told);
	assert_int_equal(put_told(w, told), STORAGE_DUPLICATE);
	expect_rows(w, "SELECT seq FROM events", "200001");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(moves_on_where_every_event_was_pruned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
