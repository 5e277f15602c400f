/* Made-up deliveries that look like a fleet's: sandboxes of forty templates come, pause, resume and
 * go, executors report what ran in them, all in the order of receipt, a little late as in life. The
 * same seed makes the same traffic. One thread.
 */
#pragma once

#include "base.h"

#define TRAFFIC_BODY_MAX 4096

struct traffic;

struct traffic_options {
	int64_t events; /* about so many */
	int64_t from_unix_ms, until_unix_ms; /* when they happen */
	int64_t open; /* sandboxes of the last hours that are not over at the end */
	int64_t hurry; /* sandboxes live so many times shorter than in life; 0: as long */
	int64_t punctual; /* deliveries are so many times less late than in life; 0: as late */
	bool one_source; /* executions come like all others: from E2B, with its headers */
	uint64_t seed;
};

/* One delivery, lent until the next call. Spans that the sender would not send are absent. */
struct traffic_delivery {
	const char *source;
	struct span webhook_id, delivery_id;
	int64_t received_unix_ms;
	struct span body;
};

MUST_CHECK int traffic_new(const struct traffic_options *options, struct traffic **ret);
void traffic_free(struct traffic *t);
/* TRAFFIC_MORE, or 0 at the end; -ENOMEM. */
#define TRAFFIC_MORE 1
MUST_CHECK int traffic_next(struct traffic *t, struct traffic_delivery *ret);
