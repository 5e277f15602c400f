/* event_data by kind: E2B's account of the run (paused, killed), the reason of an end, the new end
 * time (updated), the executor's start-up time (created), the parent (forked), and the execution of
 * code_executed. What a kind does not use is not looked at, with one exception: metadata, which any
 * kind may carry and which is never a reason to refuse an event.
 *
 * An execution's failure must not hide: contradicting signs count as failed, an unknown status too.
 */
#include "event_data.h"

#include "buffer.h"
#include "decimal.h"
#include "event_field.h"

#include <errno.h>

#define VCPU_MAX 1024
#define MEMORY_MB_MAX INT64_C(16777216)
#define DAY_MS INT64_C(86400000)
#define REPORT_DURATION_MS_MAX (3653 * DAY_MS) /* ten years */
#define EXECUTION_DURATION_MS_MAX (1000 * DAY_MS)
#define METADATA_TEXT_MAX ((size_t)96 << 20) /* the largest body, its numbers written longer */
#define FEMTO_PER_NANO INT64_C(1000000)

#define AT(type, member) .offset = offsetof(struct type, member)

static const struct event_field created_fields[] = {
	{ { "startup_ms" }, EVENT_FIELD_INTEGER, AT(event, startup_ms), .max = DAY_MS },
};
static const struct event_field updated_fields[] = {
	{ { "set_timeout" }, EVENT_FIELD_TIME_MS, AT(event, set_timeout_unix_ms) },
};
static const struct event_field forked_fields[] = {
	{ { "source_sandbox_id" }, EVENT_FIELD_ID, AT(event, source_sandbox_id) },
};
static const struct event_field killed_fields[] = {
	{ { "kill_reason" }, EVENT_FIELD_TEXT, AT(event, kill_reason), .max = EVENT_WORD_MAX },
};

/* The fields of the kinds that go straight into the event. */
static const struct kind_fields {
	const struct event_field *rows;
	size_t n_rows;
} kind_fields[EVENT_N_KINDS] = {
	[EVENT_CREATED] = { created_fields, ARRAY_SIZE(created_fields) },
	[EVENT_UPDATED] = { updated_fields, ARRAY_SIZE(updated_fields) },
	[EVENT_FORKED] = { forked_fields, ARRAY_SIZE(forked_fields) },
	[EVENT_KILLED] = { killed_fields, ARRAY_SIZE(killed_fields) },
};

struct data_parts {
	const struct json_value *execution, *code_execution, *metadata;
};
static const struct event_field report_part[] = {
	{ { "execution" }, EVENT_FIELD_OBJECT, AT(data_parts, execution) },
};
static const struct event_field code_part[] = {
	{ { "code_execution" },
	  EVENT_FIELD_OBJECT,
	  AT(data_parts, code_execution),
	  .required = true },
};

static const struct event_field report_fields[] = {
	{ { "started_at" }, EVENT_FIELD_TIME_MS, AT(event_report, started_unix_ms) },
	{ { "execution_time" },
	  EVENT_FIELD_DURATION,
	  AT(event_report, duration_ms),
	  .max = REPORT_DURATION_MS_MAX },
	{ { "vcpu_count" },
	  EVENT_FIELD_INTEGER,
	  AT(event_report, vcpu_count),
	  .min = 1,
	  .max = VCPU_MAX },
	{ { "memory_mb" },
	  EVENT_FIELD_INTEGER,
	  AT(event_report, memory_mb),
	  .min = 1,
	  .max = MEMORY_MB_MAX },
};

/* code_execution as sent, before the signs are weighed against each other. */
struct code_fields {
	struct event_execution execution;
	struct span status;
	int64_t timed_out, final;
	const struct json_value *error, *cost;
};
static const struct event_field code_fields[] = {
	{ { "execution_id" },
	  EVENT_FIELD_ID,
	  AT(code_fields, execution.execution_id),
	  .required = true },
	{ { "duration_ms" },
	  EVENT_FIELD_INTEGER,
	  AT(code_fields, execution.duration_ms),
	  .required = true,
	  .max = EXECUTION_DURATION_MS_MAX },
	{ { "kind" },
	  EVENT_FIELD_TEXT,
	  AT(code_fields, execution.kind_name),
	  .max = EVENT_WORD_MAX },
	{ { "language" },
	  EVENT_FIELD_TEXT,
	  AT(code_fields, execution.language),
	  .max = EVENT_WORD_MAX },
	{ { "started_at" }, EVENT_FIELD_TIME_MS, AT(code_fields, execution.started_unix_ms) },
	{ { "finished_at" }, EVENT_FIELD_TIME_MS, AT(code_fields, execution.finished_unix_ms) },
	{ { "status" }, EVENT_FIELD_TEXT, AT(code_fields, status), .max = EVENT_WORD_MAX },
	{ { "timed_out" }, EVENT_FIELD_BOOL, AT(code_fields, timed_out) },
	{ { "exit_code" },
	  EVENT_FIELD_INTEGER,
	  AT(code_fields, execution.exit_code),
	  .min = INT32_MIN,
	  .max = INT32_MAX },
	{ { "error" }, EVENT_FIELD_ANY, AT(code_fields, error) },
	{ { "attempt" },
	  EVENT_FIELD_INTEGER,
	  AT(code_fields, execution.attempt),
	  .min = 1,
	  .max = INT32_MAX },
	{ { "final" }, EVENT_FIELD_BOOL, AT(code_fields, final) },
	{ { "vcpu_count" },
	  EVENT_FIELD_INTEGER,
	  AT(code_fields, execution.vcpu_count),
	  .min = 1,
	  .max = VCPU_MAX },
	{ { "memory_mb" },
	  EVENT_FIELD_INTEGER,
	  AT(code_fields, execution.memory_mb),
	  .min = 1,
	  .max = MEMORY_MB_MAX },
	{ { "cost" }, EVENT_FIELD_ANY, AT(code_fields, cost) },
};

struct error_fields {
	struct span name, value;
};
static const struct event_field error_fields[] = {
	{ { "name" }, EVENT_FIELD_TEXT, AT(error_fields, name), .max = EVENT_ERROR_NAME_MAX },
	{ { "value" }, EVENT_FIELD_TEXT, AT(error_fields, value), .max = EVENT_ERROR_VALUE_MAX },
};

static int read_report(struct event *event, struct event_object data, char *detail)
{
	struct data_parts parts;
	int r = event_field_read_all(data, report_part, ARRAY_SIZE(report_part), &parts, detail);
	if (r != 0)
		return r;
	struct event_object o = { parts.execution, "event_data.execution." };
	struct event_report *report = &event->report;
	r = event_field_read_all(o, report_fields, ARRAY_SIZE(report_fields), report, detail);
	report->present =
		report->started_unix_ms != EVENT_ABSENT && report->duration_ms != EVENT_ABSENT;
	return r;
}

/* An object, or (some executors) just its text. An empty text says nothing. */
static int read_error(struct event_execution *x, const struct json_value *error, bool *ret_failed,
		      char *detail)
{
	const char *path = "event_data.code_execution.";
	*ret_failed = false;
	if (!error)
		return 0;
	if (json_type(error) == JSON_STRING) {
		x->error_value = event_field_cut(json_string(error), EVENT_ERROR_VALUE_MAX);
		*ret_failed = x->error_value.s != NULL;
		return 0;
	}
	if (json_type(error) != JSON_OBJECT)
		return event_field_problem(EVENT_WRONG_TYPE, path, "error",
					   "must be an object, a string or null", detail);
	*ret_failed = true;
	struct error_fields fields;
	struct event_object o = { error, "event_data.code_execution.error." };
	int r = event_field_read_all(o, error_fields, ARRAY_SIZE(error_fields), &fields, detail);
	if (r != 0)
		return r;
	x->error_name = fields.name;
	x->error_value = fields.value;
	return 0;
}

static bool status_from_name(struct span name, enum event_status *ret)
{
	for (enum event_status s = EVENT_SUCCESS; s <= EVENT_STATUS_KILLED; s++) {
		const char *text = event_status_name(s);
		if (span_is(name, (struct span) { text, __builtin_strlen(text) })) {
			*ret = s;
			return true;
		}
	}
	return false;
}

static void judge_status(struct event_execution *x, const struct code_fields *fields,
			 bool has_error)
{
	bool timed_out = fields->timed_out == 1;
	bool bad_exit = x->exit_code != EVENT_ABSENT && x->exit_code != 0;
	bool sign = timed_out || has_error || bad_exit;
	enum event_status derived = timed_out ? EVENT_TIMEOUT : sign ? EVENT_ERROR : EVENT_SUCCESS;
	enum event_status sent = EVENT_SUCCESS;
	bool known = status_from_name(fields->status, &sent);
	bool unknown_word = fields->status.s && !known;

	x->failed = sign || sent != EVENT_SUCCESS || unknown_word;
	x->status = sent != EVENT_SUCCESS ? sent : derived;
	if (x->failed && x->status == EVENT_SUCCESS)
		x->status = EVENT_ERROR;
}

/* The sender's estimate in USD; anything else there is as good as none. */
static int64_t read_cost(const struct json_value *cost)
{
	const struct json_value *amount = json_member(cost, "amount");
	const struct json_value *currency = json_member(cost, "currency");
	int64_t femto = 0;
	if (!amount || json_type(amount) != JSON_STRING)
		return EVENT_ABSENT;
	if (currency && json_type(currency) != JSON_NULL &&
	    !span_is(json_string(currency), SPAN_LITERAL("USD")))
		return EVENT_ABSENT;
	struct span text = json_string(amount);
	if (decimal_parse(text.s, text.len, &femto) != 0)
		return EVENT_ABSENT;
	return (femto + FEMTO_PER_NANO / 2) / FEMTO_PER_NANO;
}

static int read_code_execution(struct event *event, struct event_object data, char *detail)
{
	struct data_parts parts;
	int r = event_field_read_all(data, code_part, ARRAY_SIZE(code_part), &parts, detail);
	if (r != 0)
		return r;
	struct code_fields fields = { .execution = event->execution };
	struct event_object o = { parts.code_execution, "event_data.code_execution." };
	r = event_field_read_all(o, code_fields, ARRAY_SIZE(code_fields), &fields, detail);
	if (r != 0)
		return r;
	struct event_execution *x = &fields.execution;
	bool has_error = false;
	r = read_error(x, fields.error, &has_error, detail);
	if (r != 0)
		return r;
	judge_status(x, &fields, has_error);
	x->attempt = x->attempt == EVENT_ABSENT ? 1 : x->attempt;
	x->final = fields.final != 0;
	x->cost_nanousd = read_cost(fields.cost);
	event->execution = *x;
	return 0;
}

/* The envelope's reason (compatible senders) counts where event_data has none. */
static int merge_kill_reason(struct event *event, const struct json_value *envelope, char *detail)
{
	if (!envelope)
		return 0;
	if (json_type(envelope) != JSON_STRING)
		return event_field_problem(EVENT_WRONG_TYPE, "", "kill_reason", "must be a string",
					   detail);
	struct span reason = event_field_cut(json_string(envelope), EVENT_WORD_MAX);
	if (reason.s && event->kill_reason.s && !span_is(reason, event->kill_reason))
		return event_field_problem(EVENT_CONFLICT, "event_data.", "kill_reason",
					   "the envelope says something else", detail);
	if (reason.s)
		event->kill_reason = reason;
	return 0;
}

static int read_metadata(struct event *event, const struct json_value *data)
{
	const struct json_value *metadata = json_member(data, "sandbox_metadata");
	if (!metadata || json_type(metadata) != JSON_OBJECT || !json_first(metadata))
		return 0;
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(METADATA_TEXT_MAX);
	int r = json_append_value(&b, metadata);
	if (r != 0)
		return r;
	size_t len = b.len;
	event->metadata_text = buffer_steal(&b);
	if (!event->metadata_text)
		return -ENOMEM;
	event->metadata = (struct span) { event->metadata_text, len };
	return 0;
}

/* 2025: the object came as its JSON text, none as "". */
static int unwrap_text(struct event *event, const struct json_value **data, char *detail)
{
	struct span text = json_string(*data);
	*data = NULL;
	if (text.len == 0)
		return 0;
	int r = json_parse(text.s, text.len, &event->data_doc);
	if (r < 0)
		return r;
	if (r > 0)
		return event_field_problem(EVENT_WRONG_TYPE, "", "event_data",
					   "a string must hold one sound JSON object", detail);
	*data = json_root(event->data_doc);
	return 0;
}

/* Whatever it was: an object or NULL. */
static int find_object(struct event *event, const struct json_value **data, char *detail)
{
	bool lenient = event->kind == EVENT_OTHER || event->kind == EVENT_TEST;
	int r = 0;
	if (*data && json_type(*data) == JSON_STRING)
		r = unwrap_text(event, data, detail);
	else if (*data && json_type(*data) != JSON_OBJECT)
		r = event_field_problem(EVENT_WRONG_TYPE, "", "event_data",
					"must be an object or null", detail);
	if (r > 0 && lenient) {
		*data = NULL;
		detail[0] = '\0';
		r = 0;
	}
	return r;
}

int event_data_read(struct event *event, const struct json_value *data,
		    const struct json_value *kill_reason, char detail[static EVENT_DETAIL_MAX])
{
	int r = find_object(event, &data, detail);
	if (r != 0)
		return r;
	struct event_object o = { data, "event_data." };
	const struct kind_fields *fields = &kind_fields[event->kind];
	r = event_field_read_all(o, fields->rows, fields->n_rows, event, detail);
	if (r == 0 && event->kind == EVENT_KILLED)
		r = merge_kill_reason(event, kill_reason, detail);
	if (r == 0 && event_kind_ends_run(event->kind))
		r = read_report(event, o, detail);
	if (r == 0 && event->kind == EVENT_CODE_EXECUTED)
		r = read_code_execution(event, o, detail);
	return r == 0 ? read_metadata(event, data) : r;
}
