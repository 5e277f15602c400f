/* Memory given out in pieces: they are whole, apart, and all gone at the end. */
#include "arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void gives_pieces_that_do_not_overlap(void **state)
{
	struct arena a;
	unsigned char *pieces[500];
	assert_int_equal(arena_init(&a, 100), 0);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		pieces[i] = arena_alloc(&a, i);
		assert_non_null(pieces[i]);
		assert_int_equal((uintptr_t)pieces[i] % sizeof(max_align_t) % 16, 0);
		memset(pieces[i], (int)(i & 0xff), i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
		for (size_t k = 0; k < i; k++)
			assert_int_equal(pieces[i][k], i & 0xff);
	arena_finish(&a);
}

static void gives_a_piece_larger_than_any_chunk(void **state)
{
	struct arena a;
	assert_int_equal(arena_init(&a, 16), 0);
	char *piece = arena_alloc(&a, 1 << 20);
	assert_non_null(piece);
	memset(piece, 1, 1 << 20);
	arena_finish(&a);
}

static void refuses_what_no_machine_has(void **state)
{
	struct arena a;
	assert_true(arena_init(&a, SIZE_MAX) < 0);
	assert_int_equal(arena_init(&a, 16), 0);
	assert_null(arena_alloc(&a, SIZE_MAX));
	assert_null(arena_alloc(&a, SIZE_MAX / 4));
	assert_non_null(arena_alloc(&a, 1));
	arena_finish(&a);
}

static void finishes_nothing_and_twice(void **state)
{
	struct arena a = { 0 };
	arena_finish(NULL);
	arena_finish(&a);
	assert_int_equal(arena_init(&a, 16), 0);
	arena_finish(&a);
	arena_finish(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_pieces_that_do_not_overlap),
		cmocka_unit_test(gives_a_piece_larger_than_any_chunk),
		cmocka_unit_test(refuses_what_no_machine_has),
		cmocka_unit_test(finishes_nothing_and_twice),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
