/* Any bytes as a request: it is understood whole or refused with a sentence, and what was
 * understood says the same when it is written out again. */
#include "control.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *what_name(unsigned int what)
{
	switch (what) {
	case REQUEUE_QUARANTINE:
		return "quarantine";
	case REQUEUE_REJECTIONS:
		return "rejections";
	case REQUEUE_SKIPPED:
		return "skipped";
	default:
		assert(what == REQUEUE_ALL);
		return "all";
	}
}

static void write_request(const struct control_request *r, char line[static CONTROL_REQUEST_MAX])
{
	const char *name = control_command_name(r->command);
	if (r->command != CONTROL_REQUEUE) {
		(void)snprintf(line, CONTROL_REQUEST_MAX, "%s%s%s", name, *r->name ? " name=" : "",
			       r->name);
		return;
	}
	const char *reason = ingest_reason_name(r->reason);
	(void)snprintf(line, CONTROL_REQUEST_MAX, "%s what=%s%s%s%s%s", name, what_name(r->what),
		       *r->source ? " source=" : "", r->source, *reason ? " reason=" : "", reason);
}

static void check_error(const char error[static CONTROL_TEXT_MAX])
{
	size_t len = strnlen(error, CONTROL_TEXT_MAX);
	assert(len > 0 && len < CONTROL_TEXT_MAX);
	for (size_t i = 0; i < len; i++)
		assert(error[i] >= ' ' && error[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_request request, again;
	char error[CONTROL_TEXT_MAX], line[CONTROL_REQUEST_MAX];
	int r = control_parse((const char *)data, size, &request, error);
	assert(r == 0 || r == CONTROL_BAD_REQUEST);
	if (r != 0) {
		check_error(error);
		return 0;
	}
	assert(size < CONTROL_REQUEST_MAX && strlen(request.source) <= CONTROL_SOURCE_MAX &&
	       strlen(request.name) <= CONTROL_SOURCE_MAX);
	write_request(&request, line);
	assert(control_parse(line, strlen(line), &again, error) == 0);
	assert(again.command == request.command && again.what == request.what &&
	       again.reason == request.reason && strcmp(again.source, request.source) == 0 &&
	       strcmp(again.name, request.name) == 0);
	return 0;
}
