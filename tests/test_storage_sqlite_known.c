/* From an id to a sandbox's row, however much is stored: through parts of an index that are mostly
 * not asked. */
#include "storage_fixture.h"

#include "storage_sqlite_known.h"

#include "ledger.h"

#define PART INT64_C(65536) /* keys, as in the schema's index */
#define STRANGERS 20000

static void learn(struct world *w)
{
	for (int i = 0; storage_wants_learning(w->s); i++) {
		assert_true(i < 1000);
		assert_int_equal(storage_learn(w->s), 0);
	}
}

/* The key of a sandbox that is stored, 0 if it is not. */
static int64_t find(struct world *w, const char *id)
{
	struct ledger_sandbox x;
	assert_int_equal(storage_load_sandbox(w->s, (struct span) { id, strlen(id) }, &x), 0);
	int64_t key = x.is_stored ? x.key : 0;
	ledger_sandbox_finish(&x);
	return key;
}

static int save(struct world *w, const char *id)
{
	struct ledger_sandbox x;
	struct ledger_terms terms = { 0 };
	assert_int_equal(storage_load_sandbox(w->s, (struct span) { id, strlen(id) }, &x), 0);
	x.first_event_ms = RECEIVED_MS; /* none is stored without an event */
	int r = ledger_settle(&x, &terms, RECEIVED_MS);
	if (r == 0)
		r = storage_save_sandbox(w->s, &x);
	ledger_sandbox_finish(&x);
	return r;
}

static void store(struct world *w, const char *id)
{
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(save(w, id), 0);
	assert_int_equal(storage_commit(w->s), 0);
}

/* Sandboxes on both sides of the borders of four parts. */
static void store_over_parts(struct world *w)
{
	for (int64_t i = 0; i < 4; i++) {
		w->s->next_sandbox_key = base_max_i64(1, i * PART - 2);
		for (int k = 0; k < 4; k++) {
			char id[32];
			(void)snprintf(id, sizeof(id), "part%dsandbox%d", (int)i, k);
			store(w, id);
		}
	}
}

static void expect_over_parts(struct world *w)
{
	for (int64_t i = 0; i < 4; i++)
		for (int k = 0; k < 4; k++) {
			char id[32];
			(void)snprintf(id, sizeof(id), "part%dsandbox%d", (int)i, k);
			assert_int_equal(find(w, id), base_max_i64(1, i * PART - 2) + k);
		}
	assert_int_equal(find(w, "part4sandbox0"), 0);
	expect_rows(w, "SELECT count(*), count(DISTINCT sandbox_id) FROM sandbox", "16|16");
}

static void finds_what_is_stored_in_any_part(void **state)
{
	struct world *w = *state;
	store_over_parts(w);
	expect_over_parts(w);
}

static void finds_it_after_a_start_before_and_after_it_has_read_the_ids(void **state)
{
	struct world *w = *state;
	store_over_parts(w);
	reopen(w);
	expect_over_parts(w);
	reopen(w);
	learn(w);
	expect_over_parts(w);
}

static void finds_what_is_stored_while_the_ids_are_being_read(void **state)
{
	struct world *w = *state;
	store_over_parts(w);
	reopen(w);
	assert_int_equal(storage_learn(w->s), 0);
	store(w, "meanwhile");
	int64_t key = find(w, "meanwhile");
	assert_true(key > 3 * PART);
	learn(w);
	assert_int_equal(find(w, "meanwhile"), key);
	expect_rows(w, "SELECT count(*), count(DISTINCT sandbox_id) FROM sandbox", "17|17");
}

static int runs_of(struct world *w, enum storage_sql sql)
{
	sqlite3_stmt *statement = w->s->statements[STORAGE_LIVE][sql];
	return statement ? sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_RUN, 1) : 0;
}

static void asks_the_index_for_few_of_those_that_are_not_stored(void **state)
{
	struct world *w = *state;
	assert_int_equal(storage_begin(w->s, false), 0);
	for (int i = 0; i < STRANGERS; i++) {
		char id[32];
		(void)snprintf(id, sizeof(id), "i%x", (unsigned int)i * 2654435761u);
		assert_int_equal(save(w, id), 0);
	}
	assert_int_equal(storage_commit(w->s), 0);
	reopen(w);
	learn(w);
	(void)runs_of(w, SQL_SANDBOX_GET);
	for (int i = 0; i < STRANGERS; i++) {
		char id[32];
		(void)snprintf(id, sizeof(id), "j%x", (unsigned int)i * 2654435761u);
		assert_int_equal(find(w, id), 0);
	}
	assert_in_range(runs_of(w, SQL_SANDBOX_GET), 0, STRANGERS / 100);
}

static void takes_a_sandbox_again_whose_transaction_was_lost(void **state)
{
	struct world *w = *state;
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(save(w, "lost"), 0);
	storage_rollback(w->s);
	assert_int_equal(find(w, "lost"), 0);
	store(w, "lost");
	store(w, "lost");
	expect_rows(w, "SELECT count(*) FROM sandbox", "1");
}

/* What is said to be gone must be found if it is not. */
static void lets_go_of_parts_only_when_their_sandboxes_are_gone(void **state)
{
	struct world *w = *state;
	store_over_parts(w);
	storage_sqlite_known_note_deletion(w->s);
	learn(w);
	expect_over_parts(w);
	assert_int_equal(sqlite3_exec(w->s->db,
				      "DELETE FROM sandbox WHERE sandbox_key < 2 * 65536 - 2", NULL,
				      NULL, NULL),
			 SQLITE_OK);
	storage_sqlite_known_note_deletion(w->s);
	learn(w);
	assert_int_equal(find(w, "part0sandbox0"), 0);
	assert_int_equal(find(w, "part1sandbox0"), 0);
	assert_int_equal(find(w, "part2sandbox0"), 2 * PART - 2);
	assert_int_equal(find(w, "part2sandbox3"), 2 * PART + 1);
}

static void plans_look_ups_and_joins_by_id_through_the_index(void **state)
{
	struct world *w = *state;
	static const char *const queries[] = {
		"SELECT * FROM sandboxes WHERE sandbox_id = 'x'",
		"SELECT * FROM runs WHERE run_id = 'x'",
		"SELECT * FROM executions x JOIN sandboxes s USING (sandbox_id) WHERE x.time > 9",
		"SELECT * FROM executions x JOIN runs r USING (run_id) WHERE x.time > 9",
	};
	reopen(w);
	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		char sql[256];
		(void)snprintf(sql, sizeof(sql), "EXPLAIN QUERY PLAN %s", queries[i]);
		CLEANUP_FREE char *plan = rows_of(w, sql);
		assert_non_null(strstr(plan, "(ANY(<expr>) AND "));
		assert_null(strstr(plan, "AUTOMATIC"));
		assert_null(strstr(plan, "|SCAN"));
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(finds_what_is_stored_in_any_part),
		TEST(finds_it_after_a_start_before_and_after_it_has_read_the_ids),
		TEST(finds_what_is_stored_while_the_ids_are_being_read),
		TEST(asks_the_index_for_few_of_those_that_are_not_stored),
		TEST(takes_a_sandbox_again_whose_transaction_was_lost),
		TEST(lets_go_of_parts_only_when_their_sandboxes_are_gone),
		TEST(plans_look_ups_and_joins_by_id_through_the_index),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
