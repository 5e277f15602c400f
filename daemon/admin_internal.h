/* What the parts of the admin listener share: admin_server.c (routes), admin_text.c (the format of
 * the metrics page), admin_metrics.c (figures from memory), admin_process.c (figures of the
 * process), admin_store.c (figures from the store, read by a thread of its own).
 */
#pragma once

#include "admin_health.h"
#include "buffer.h"
#include "config.h"

#define ADMIN_PAGE_MAX (8 * 1024 * 1024)
#define ADMIN_TEMPLATES_MAX 50 /* by name on the metrics page; the others are `_other` */

/* --- the format: https://prometheus.io/docs/instrumenting/exposition_formats/ --- */

/* A page under construction. The first failure stays; nothing is appended after it. */
struct admin_text {
	struct buffer out;
	int error;
	const char *family; /* of the samples that follow */
};

struct admin_label {
	const char *name, *value; /* any bytes: escaped, and made UTF-8 */
};

enum admin_type { ADMIN_COUNTER, ADMIN_GAUGE, ADMIN_HISTOGRAM };

void admin_text_init(struct admin_text *t);
void admin_text_finish(struct admin_text *t);
/* `name` must live until the family's last sample. */
void admin_text_family(struct admin_text *t, const char *name, enum admin_type type,
		       const char *help);
/* value / 10^decimals, exactly. `suffix` NULL: none. */
void admin_text_sample(struct admin_text *t, const char *suffix, const struct admin_label *labels,
		       size_t n, int64_t value, unsigned int decimals);
/* A family of one sample without labels. */
void admin_text_one(struct admin_text *t, const char *name, enum admin_type type, const char *help,
		    int64_t value, unsigned int decimals);

/* --- figures --- */

struct hook_server;

/* All but those from the store. Any thread. */
void admin_metrics_put(struct admin_text *t, const struct admin_health *h,
		       const struct hook_server *hooks, const struct config *config);
void admin_process_put(struct admin_text *t);

/* --- the thread that reads the store --- */

struct admin_store;

/* `done` is called on its thread after each reading, whether it succeeded or not. */
MUST_CHECK int admin_store_new(const char *path, struct config *config, void (*done)(void *ctx),
			       void *ctx, struct admin_store **ret);
void admin_store_set_config(struct admin_store *s, struct config *config);
/* Asks for figures newer than now; returns the number of the reading that will have them. */
uint64_t admin_store_ask(struct admin_store *s);
/* The number of the last reading that has ended. */
uint64_t admin_store_read(struct admin_store *s);
/* Appends the latest figures that could be read; nothing before the first. *ret_failed: the last
 * reading failed, so what is there is older. */
void admin_store_put(struct admin_store *s, struct admin_text *t, bool *ret_failed);
/* Ends the thread; a reading at work ends by its deadline. NULL is fine. */
void admin_store_free(struct admin_store *s);
