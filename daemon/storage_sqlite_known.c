/* A Bloom filter a part of the index, in lines of 64 bytes: an id is looked for in one of them.
 *
 * Invariant: a filter that is whole holds every id of its part, those of transactions that were
 * rolled back too; one that is not is never believed. What has no memory is looked up.
 */
#include "storage_sqlite_known.h"

#include <errno.h>
#include <string.h>

#define PART_SHIFT 16 /* as in the schema's index */
#define LINE_WORDS 8
#define LINES 2048 /* 16 bits an id; a power of two */
#define PROBES 4 /* a false answer for one id in 400 */
#define HINTS 8192 /* a power of two */
#define READ_IDS 4096

struct known {
	struct known_ledger {
		bool begun;
		size_t n_parts;
		struct known_part {
			uint64_t (*lines)[LINE_WORDS]; /* NULL: none of its ids was added */
			bool is_whole, given_up; /* given_up: its index is asked for every id */
		} * parts;
		/* Where sandboxes of late are, by a hash of their id; the row decides. */
		struct known_hint {
			uint64_t hash;
			int64_t key;
		} hints[HINTS];
	} ledgers[STORAGE_N_TARGETS];
	bool has_deletions; /* since parts were last let go of */
	/* What is being read, and behind which id it goes on. */
	enum storage_target target;
	size_t part;
	char id[EVENT_ID_MAX + 1];
};

/* FNV-1a leaves neighbours alike in the upper bits: mixed again. */
static uint64_t hash_of(struct span id)
{
	uint64_t h = base_hash(BASE_HASH_BEGIN, id.s, id.len);
	h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
	return h ^ h >> 31;
}

static size_t line_of(uint64_t hash)
{
	return hash & (LINES - 1);
}

/* Nine bits of the hash a probe: a place in the line. */
static unsigned int probe_of(uint64_t hash, unsigned int i)
{
	return hash >> (16 + 9 * i) & 511;
}

static bool may_hold(const struct known_part *part, uint64_t hash)
{
	if (!part->lines)
		return false;
	const uint64_t *line = part->lines[line_of(hash)];
	for (unsigned int i = 0; i < PROBES; i++)
		if (!(line[probe_of(hash, i) / 64] >> probe_of(hash, i) % 64 & 1))
			return false;
	return true;
}

static void fill(struct known_part *part, uint64_t hash)
{
	if (!part->lines && !part->given_up)
		part->lines = calloc(LINES, sizeof(*part->lines));
	if (!part->lines) {
		part->given_up = true;
		part->is_whole = false;
		return;
	}
	uint64_t *line = part->lines[line_of(hash)];
	for (unsigned int i = 0; i < PROBES; i++)
		line[probe_of(hash, i) / 64] |= UINT64_C(1) << probe_of(hash, i) % 64;
}

/* Ledgers ----------------------------------------------------------------- */

static void forget_ledger(struct known_ledger *ledger)
{
	for (size_t i = 0; i < ledger->n_parts; i++)
		free(ledger->parts[i].lines);
	free(ledger->parts);
	memset(ledger, 0, sizeof(*ledger));
}

/* Parts up to n; those that are new hold what will be added to them and nothing else. */
static int grow(struct known_ledger *ledger, size_t n, bool are_new)
{
	struct known_part *parts = reallocarray(ledger->parts, n, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	ledger->parts = parts;
	while (ledger->n_parts < n)
		parts[ledger->n_parts++] = (struct known_part) { .is_whole = are_new };
	return 0;
}

/* The ledger that is aimed at, with all parts that it can have. */
static int take_ledger(struct storage *s, struct known_ledger **ret)
{
	if (!s->known)
		s->known = calloc(1, sizeof(*s->known));
	if (!s->known)
		return -ENOMEM;
	struct known_ledger *ledger = &s->known->ledgers[s->target];
	int r = ledger->begun
			? 0
			: grow(ledger, (size_t)(s->next_sandbox_key >> PART_SHIFT) + 1, false);
	ledger->begun = r == 0;
	*ret = ledger;
	return r;
}

void storage_sqlite_known_forget(struct storage *s)
{
	for (size_t i = 0; s->known && i < STORAGE_N_TARGETS; i++)
		forget_ledger(&s->known->ledgers[i]);
	if (s->known)
		*s->known->id = '\0';
}

void storage_sqlite_known_finish(struct storage *s)
{
	storage_sqlite_known_forget(s);
	free(s->known);
	s->known = NULL;
}

/* Looking up -------------------------------------------------------------- */

static int look(struct storage *s, enum storage_sql sql, int64_t where, struct span id,
		sqlite3_stmt **ret_row)
{
	*ret_row = storage_sqlite_statement(s, sql);
	int r = storage_sqlite_bind(s, *ret_row, "is", where, id);
	return r < 0 ? r : storage_sqlite_step(s, *ret_row);
}

int storage_sqlite_known_find(struct storage *s, struct span id, sqlite3_stmt **ret_row)
{
	struct known_ledger *ledger;
	int r = take_ledger(s, &ledger);
	if (r < 0)
		return r;
	uint64_t hash = hash_of(id);
	const struct known_hint *hint = &ledger->hints[hash & (HINTS - 1)];
	if (hint->hash == hash && hint->key)
		r = look(s, SQL_SANDBOX_GET_AT, hint->key, id, ret_row);
	for (size_t i = ledger->n_parts; r == 0 && i-- > 0;)
		if (!ledger->parts[i].is_whole || may_hold(&ledger->parts[i], hash))
			r = look(s, SQL_SANDBOX_GET, (int64_t)i, id, ret_row);
	if (r == 1)
		ledger->hints[hash & (HINTS - 1)] =
			(struct known_hint) { hash, sqlite3_column_int64(*ret_row, 0) };
	return r;
}

void storage_sqlite_known_add(struct storage *s, struct span id, int64_t key)
{
	struct known_ledger *ledger;
	size_t part = (size_t)(key >> PART_SHIFT);
	int r = take_ledger(s, &ledger);
	if (r == 0 && part >= ledger->n_parts)
		r = grow(ledger, part + 1, true);
	if (r < 0) {
		storage_sqlite_known_forget(s); /* and begun again from the key that is next */
		return;
	}
	uint64_t hash = hash_of(id);
	fill(&ledger->parts[part], hash);
	ledger->hints[hash & (HINTS - 1)] = (struct known_hint) { hash, key };
}

void storage_sqlite_known_note_deletion(struct storage *s)
{
	if (s->known)
		s->known->has_deletions = true;
}

/* Filling in the background ------------------------------------------------ */

static bool is_readable(const struct known_part *part)
{
	return !part->is_whole && !part->given_up;
}

/* The newest part that is not whole. */
static bool next_part(const struct storage *s, enum storage_target *ret_target, size_t *ret_part)
{
	for (int t = 0; s->known && t < STORAGE_N_TARGETS; t++) {
		const struct known_ledger *ledger = &s->known->ledgers[t];
		for (size_t i = ledger->n_parts; i-- > 0;) {
			if (!is_readable(&ledger->parts[i]))
				continue;
			*ret_target = (enum storage_target)t;
			*ret_part = i;
			return true;
		}
	}
	return false;
}

bool storage_wants_learning(const struct storage *s)
{
	enum storage_target target;
	size_t part;
	return !s->known || s->known->has_deletions || next_part(s, &target, &part);
}

/* Lets go of the parts before the first sandbox. */
static int trim(struct storage *s)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SANDBOX_FIRST);
	int r = statement ? storage_sqlite_step(s, statement) : -ENOMEM;
	if (r <= 0)
		return r;
	int64_t first_key = storage_sqlite_absent(statement, 0);
	(void)sqlite3_reset(statement);
	struct known_ledger *ledger = &s->known->ledgers[STORAGE_LIVE];
	for (int64_t i = 0; i < (int64_t)ledger->n_parts && i < first_key >> PART_SHIFT; i++) {
		free(ledger->parts[i].lines);
		ledger->parts[i] = (struct known_part) { .is_whole = true };
	}
	s->known->has_deletions = false;
	return 0;
}

static int read_ids(struct storage *s, struct known_part *part, int64_t number)
{
	struct known *known = s->known;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SANDBOX_IDS);
	int r = storage_sqlite_bind(s, statement, "isi", number,
				    (struct span) { known->id, strlen(known->id) },
				    (int64_t)READ_IDS);
	int n = 0;
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		r = 0;
		n++;
		storage_sqlite_copy(statement, 0, known->id, sizeof(known->id));
		fill(part, hash_of((struct span) { known->id, strlen(known->id) }));
	}
	part->is_whole = r == 0 && n < READ_IDS && !part->given_up;
	part->given_up |= r < 0;
	return r;
}

int storage_learn(struct storage *s)
{
	enum storage_target target;
	size_t part;
	struct known_ledger *live;
	assert(!s->in_transaction && s->target == STORAGE_LIVE);
	int r = take_ledger(s, &live);
	if (r < 0)
		return r;
	if (s->known->has_deletions)
		return trim(s);
	if (!next_part(s, &target, &part))
		return 0;
	struct known *known = s->known;
	if (target != known->target || part != known->part)
		*known->id = '\0';
	known->target = target;
	known->part = part;
	s->target = target;
	r = read_ids(s, &known->ledgers[target].parts[part], (int64_t)part);
	s->target = STORAGE_LIVE;
	return r;
}
