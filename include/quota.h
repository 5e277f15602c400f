/* Counts what each address holds (open connections) and refuses above a limit. One table for all
 * threads, under its own lock; its size is bounded by what may be held in all.
 */
#pragma once

#include "base.h"

struct quota;

/* At most `per_key` for one key and about `total` keys. */
MUST_CHECK int quota_new(size_t per_key, size_t total, struct quota **ret);
void quota_free(struct quota *q);

/* True: taken, give it back with quota_release. False: the key holds its share. Any thread. */
bool quota_take(struct quota *q, const uint8_t key[static 16]);
void quota_release(struct quota *q, const uint8_t key[static 16]);
