/* Sandboxes are planned one by one in the order of their start; what is planned waits in a heap by
 * time of receipt until no later sandbox can come before it. A delivery's body is written when it
 * leaves the heap, so memory grows with what is open at a time, not with the number of events.
 */
#include "traffic.h"

#include "clock.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#define TEMPLATES 40
#define TEAMS 3
#define EVENTS_PER_SANDBOX 9
#define EXECUTIONS 5
#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)
#define OPEN_HOURS 12 /* an open one began at most so long ago: below the default of max_run */
#define UUID_TEXT 37
#define E2B_WEBHOOK SPAN_LITERAL("6a0b6f0e-6f1f-4d3c-9a55-2c1f5f8f7a10")

enum what { CREATED, PAUSED, RESUMED, KILLED, EXECUTED };

struct box {
	char id[22], build[UUID_TEXT], run[2][UUID_TEXT];
	unsigned int template, team;
	unsigned int user, job;
	int64_t begin_ms[2], end_ms[2]; /* of its two runs */
	unsigned int n_waiting; /* deliveries in the heap that are about it */
};

struct planned {
	int64_t received_ms, time_ms;
	struct box *box;
	enum what what;
	unsigned int run;
};

struct traffic {
	struct traffic_options options;
	uint64_t random;
	int64_t n_boxes, n_begun, n_open_begun;
	int64_t next_ms; /* when the next sandbox begins */
	double weight[TEMPLATES]; /* cumulative, the last is 1 */
	struct planned *heap;
	size_t n, size;
	char body[TRAFFIC_BODY_MAX];
	size_t len;
	char delivery_id[UUID_TEXT];
};

/* Chance -------------------------------------------------------------------- */

static uint64_t draw(struct traffic *t)
{
	uint64_t x = (t->random += UINT64_C(0x9e3779b97f4a7c15));
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static unsigned int below(struct traffic *t, unsigned int n)
{
	return (unsigned int)(draw(t) >> 32) % n;
}

static double unit(struct traffic *t)
{
	return ((double)(draw(t) >> 11) + 0.5) / 9007199254740992.0;
}

static int64_t waiting_time(struct traffic *t, int64_t mean_ms)
{
	int64_t hurry = base_max_i64(t->options.hurry, 1);
	return 1 + (int64_t)(-log(unit(t)) * (double)mean_ms) / hurry;
}

static void draw_uuid(struct traffic *t, char text[static UUID_TEXT])
{
	static const char digits[] = "0123456789abcdef";
	uint64_t bits = 0;
	for (size_t i = 0; i < 36; i++) {
		if (i % 16 == 0)
			bits = draw(t);
		text[i] = digits[bits & 15];
		bits >>= 4;
	}
	text[8] = text[13] = text[18] = text[23] = '-';
	text[14] = '4';
	text[19] = digits[8 + below(t, 4)];
	text[36] = '\0';
}

static void draw_sandbox_id(struct traffic *t, char text[static 22])
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	text[0] = 'i';
	for (size_t i = 1; i < 21; i++)
		text[i] = digits[below(t, 36)];
	text[21] = '\0';
}

static unsigned int draw_template(struct traffic *t)
{
	double x = unit(t);
	unsigned int i = 0;
	while (i < TEMPLATES - 1 && t->weight[i] < x)
		i++;
	return i;
}

/* The heap ------------------------------------------------------------------ */

static int push(struct traffic *t, struct planned planned)
{
	if (planned.time_ms > t->options.until_unix_ms)
		return 0;
	if (t->n == t->size) {
		size_t size = t->size ? 2 * t->size : 1024;
		struct planned *heap = reallocarray(t->heap, size, sizeof(*heap));
		if (!heap)
			return -ENOMEM;
		t->heap = heap;
		t->size = size;
	}
	size_t i = t->n++;
	for (; i > 0 && t->heap[(i - 1) / 2].received_ms > planned.received_ms; i = (i - 1) / 2)
		t->heap[i] = t->heap[(i - 1) / 2];
	t->heap[i] = planned;
	planned.box->n_waiting++;
	return 0;
}

static struct planned pop(struct traffic *t)
{
	struct planned first = t->heap[0], last = t->heap[--t->n];
	size_t i = 0;
	for (;;) {
		size_t child = 2 * i + 1;
		if (child + 1 < t->n && t->heap[child + 1].received_ms < t->heap[child].received_ms)
			child++;
		if (child >= t->n || t->heap[child].received_ms >= last.received_ms)
			break;
		t->heap[i] = t->heap[child];
		i = child;
	}
	t->heap[i] = last;
	return first;
}

/* Planning ------------------------------------------------------------------ */

/* Mostly under a second; one in two hundred needs another try, one in two thousand comes late. */
static int64_t delay(struct traffic *t)
{
	unsigned int luck = below(t, 2000);
	int64_t punctual = base_max_i64(t->options.punctual, 1);
	if (luck == 0)
		return below(t, (unsigned int)HOUR_MS) / punctual;
	return ((luck < 10 ? 10000 : 30) + below(t, luck < 10 ? 20000 : 800)) / punctual;
}

static int plan(struct traffic *t, struct box *box, enum what what, unsigned int run,
		int64_t time_ms)
{
	return push(t, (struct planned) {
			       .received_ms =
				       base_min_i64(time_ms + delay(t), t->options.until_unix_ms),
			       .time_ms = time_ms,
			       .box = box,
			       .what = what,
			       .run = run,
		       });
}

static int plan_executions(struct traffic *t, struct box *box, unsigned int n, int64_t until_ms)
{
	for (unsigned int i = 0; i < n; i++) {
		unsigned int run = box->end_ms[0] > until_ms ? 0 : below(t, 2);
		int64_t end = base_min_i64(box->end_ms[run], until_ms);
		double at = (double)(end - box->begin_ms[run]) * unit(t);
		int r = plan(t, box, EXECUTED, run, box->begin_ms[run] + 1 + (int64_t)at);
		if (r < 0)
			return r;
	}
	return 0;
}

static int plan_lifecycle(struct traffic *t, struct box *box)
{
	int r = plan(t, box, CREATED, 0, box->begin_ms[0]);
	if (r == 0)
		r = plan(t, box, PAUSED, 0, box->end_ms[0]);
	if (r == 0)
		r = plan(t, box, RESUMED, 1, box->begin_ms[1]);
	return r < 0 ? r : plan(t, box, KILLED, 1, box->end_ms[1]);
}

static int begin_box(struct traffic *t, int64_t now_ms, bool open)
{
	struct box *box = calloc(1, sizeof(*box));
	if (!box)
		return -ENOMEM;
	draw_sandbox_id(t, box->id);
	draw_uuid(t, box->run[0]);
	draw_uuid(t, box->run[1]);
	box->template = draw_template(t);
	box->team = box->template % TEAMS;
	box->user = below(t, 5000);
	box->job = below(t, 1000000);
	box->begin_ms[0] = now_ms;
	box->end_ms[0] = open ? INT64_MAX : now_ms + waiting_time(t, 20 * MINUTE_MS);
	box->begin_ms[1] = open ? INT64_MAX : box->end_ms[0] + waiting_time(t, HOUR_MS);
	box->end_ms[1] = open ? INT64_MAX : box->begin_ms[1] + waiting_time(t, 20 * MINUTE_MS);
	int r = plan_executions(t, box, EXECUTIONS - 2 + below(t, 5),
				open ? t->options.until_unix_ms : box->end_ms[1]);
	if (r == 0)
		r = plan_lifecycle(t, box);
	if (box->n_waiting == 0)
		free(box);
	return r;
}

/* Ordinary ones come evenly; in the last hours those that stay open come between them. */
static int begin_next(struct traffic *t)
{
	const struct traffic_options *o = &t->options;
	int64_t span = o->until_unix_ms - o->from_unix_ms, open_span = OPEN_HOURS * HOUR_MS;
	int64_t regular = INT64_MAX, open = INT64_MAX;
	if (t->n_begun < t->n_boxes)
		regular = o->from_unix_ms +
			  (int64_t)((double)span / (double)t->n_boxes * (double)t->n_begun);
	if (t->n_open_begun < o->open)
		open = o->until_unix_ms - open_span + open_span / o->open * t->n_open_begun;
	t->next_ms = base_min_i64(regular, open);
	if (t->next_ms == INT64_MAX)
		return 0;
	if (open <= regular)
		t->n_open_begun++;
	else
		t->n_begun++;
	return begin_box(t, t->next_ms, open <= regular);
}

int traffic_new(const struct traffic_options *options, struct traffic **ret)
{
	struct traffic *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->options = *options;
	t->random = options->seed;
	t->n_boxes = options->events / EVENTS_PER_SANDBOX - options->open * 2 / 3;
	t->next_ms = INT64_MIN;
	double sum = 0;
	for (unsigned int i = 0; i < TEMPLATES; i++)
		t->weight[i] = sum += 1 / pow(i + 1, 1.1);
	for (unsigned int i = 0; i < TEMPLATES; i++)
		t->weight[i] /= sum;
	*ret = t;
	return 0;
}

void traffic_free(struct traffic *t)
{
	if (!t)
		return;
	while (t->n > 0) {
		struct planned p = pop(t);
		if (--p.box->n_waiting == 0)
			free(p.box);
	}
	free(t->heap);
	free(t);
}

/* Bodies -------------------------------------------------------------------- */

static void say(struct traffic *t, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void say(struct traffic *t, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(t->body + t->len, sizeof(t->body) - t->len, fmt, args);
	va_end(args);
	assert(n >= 0 && (size_t)n < sizeof(t->body) - t->len);
	t->len += (size_t)n;
}

static const char *const teams[TEAMS] = { "3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4",
					  "9d2b7c11-5e0a-4c36-b1f8-70e6a4d3c925",
					  "c81e64a7-2f9d-4b05-9e43-1ab5d7f0628c" };

static unsigned int vcpus(const struct box *box)
{
	return 1U << box->template % 3;
}

static void say_metadata(struct traffic *t, const struct box *box)
{
	static const char *const agents[] = { "billing-summary", "code-interpreter", "web-research",
					      "data-cleaning" };
	say(t,
	    "\"sandbox_metadata\":{\"agent\":\"%s\",\"env\":\"%s\",\"job_id\":\"job-%06u\","
	    "\"user_id\":\"%u\"}",
	    agents[box->template % ARRAY_SIZE(agents)], box->user % 5 ? "production" : "staging",
	    box->job, 40000 + box->user);
}

static void say_report(struct traffic *t, const struct planned *p)
{
	char started[CLOCK_TEXT_MAX];
	int64_t begin = p->box->begin_ms[p->run] / 1000 * 1000;
	clock_format_ms(begin, started);
	started[19] = '\0';
	say(t,
	    "\"execution\":{\"execution_time\":%" PRId64
	    ",\"memory_mb\":%u,\"started_at\":\"%sZ\",\"vcpu_count\":%u},",
	    p->time_ms - begin, 512 * vcpus(p->box), started, vcpus(p->box));
	if (p->what == KILLED)
		say(t, "\"kill_reason\":\"%s\",", p->box->job % 3 ? "request" : "timeout");
}

struct failure {
	const char *name, *value, *line;
};
static const struct failure failures[] = {
	{ "ZeroDivisionError", "division by zero", "ratio = done / total" },
	{ "ModuleNotFoundError", "No module named 'polars'", "import polars as pl" },
	{ "KeyError", "'customer_id'", "key = row['customer_id']" },
	{ "ValueError", "could not convert string to float: 'n/a'", "x = float(cell)" },
	{ "FileNotFoundError", "[Errno 2] No such file or directory: 'input.csv'",
	  "f = open('input.csv')" },
	{ "TypeError", "unsupported operand type(s) for +: 'int' and 'str'", "s = 0 + name" },
};

static void say_error(struct traffic *t, const struct failure *f)
{
	say(t,
	    "{\"name\":\"%s\",\"value\":\"%s\",\"traceback\":\"\\u001b[0;31m-----------------------"
	    "----------------------------------------------------\\u001b[0m\\n\\u001b[0;31m%s"
	    "\\u001b[0m Traceback (most recent call last)\\n",
	    f->name, f->value, f->name);
	for (unsigned int i = below(t, 8); i > 0; i--)
		say(t, "File /home/user/job/step_%u.py:%u, in run(rows)\\n", i, below(t, 400));
	say(t, "----> 1 %s\\n\\n%s: %s\"}", f->line, f->name, f->value);
}

static void say_execution(struct traffic *t, const struct planned *p)
{
	char id[UUID_TEXT], context[UUID_TEXT], began[CLOCK_TEXT_MAX], ended[CLOCK_TEXT_MAX];
	int64_t duration = 20 + (int64_t)pow(10, 1 + 3.2 * unit(t));
	int64_t begin = base_max_i64(p->time_ms - duration - 20, p->box->begin_ms[p->run]);
	unsigned int luck = below(t, 1000);
	bool timed_out = luck < 5, failed = luck < 60;
	draw_uuid(t, id);
	draw_uuid(t, context);
	clock_format_ms(begin, began);
	clock_format_ms(begin + duration, ended);
	say(t,
	    "\"code_execution\":{\"execution_id\":\"%s\",\"kind\":\"code\",\"language\":\"python\","
	    "\"context_id\":\"%s\",\"execution_count\":%u,\"started_at\":\"%s\",\"finished_at\":"
	    "\"%s\",\"duration_ms\":%" PRId64 ",\"timeout_ms\":300000,\"timed_out\":%s,",
	    id, context, 1 + luck % 9, began, ended, duration, timed_out ? "true" : "false");
	say(t, "\"status\":\"%s\",\"exit_code\":%d,\"error\":",
	    timed_out ? "timeout"
	    : failed  ? "error"
		      : "success",
	    failed);
	if (failed && !timed_out)
		say_error(t, &failures[luck % ARRAY_SIZE(failures)]);
	else
		say(t, "null");
	say(t,
	    ",\"results_count\":1,\"result_formats\":[\"text\"],\"stdout_bytes\":%u,"
	    "\"stderr_bytes\":0,\"vcpu_count\":%u,\"memory_mb\":%u,\"cost\":null},",
	    below(t, 4000), vcpus(p->box), 512 * vcpus(p->box));
}

static const struct {
	const char *type, *category, *label;
} words[] = {
	[CREATED] = { "sandbox.lifecycle.created", "lifecycle", "create" },
	[PAUSED] = { "sandbox.lifecycle.paused", "lifecycle", "pause" },
	[RESUMED] = { "sandbox.lifecycle.resumed", "lifecycle", "resume" },
	[KILLED] = { "sandbox.lifecycle.killed", "lifecycle", "kill" },
	[EXECUTED] = { "sandbox.code_executed", "code", "execute" },
};

/* Start-up times come with the created events of every other template. */
static void say_data(struct traffic *t, const struct planned *p)
{
	if (p->what == EXECUTED)
		say_execution(t, p);
	else if (p->what == CREATED && p->box->template % 2)
		say(t, "\"startup_ms\":%u,", 60 + below(t, 400));
	else if (p->what == PAUSED || p->what == KILLED)
		say_report(t, p);
	say_metadata(t, p->box);
}

static bool is_named(const struct planned *p)
{
	return p->what != EXECUTED || p->box->template % 2 == 0;
}

/* An executor of every other template knows neither run nor build nor team. */
static void say_ids(struct traffic *t, const struct planned *p)
{
	const struct box *box = p->box;
	say(t, "},\"sandbox_id\":\"%s\"", box->id);
	if (is_named(p))
		say(t, ",\"sandbox_execution_id\":\"%s\"", box->run[p->run]);
	say(t, ",\"sandbox_template_id\":\"k3v9x2m7q1w8e5r4t%03u\"", box->template);
	if (is_named(p))
		say(t,
		    ",\"sandbox_build_id\":\"b5d1c7de-38c4-4c0d-9d0c-8c7a2e4f1%03u\","
		    "\"sandbox_team_id\":\"%s\"",
		    box->template, teams[box->team]);
	say(t, "}");
}

static void say_event(struct traffic *t, const struct planned *p)
{
	char id[UUID_TEXT], time[CLOCK_TEXT_MAX];
	draw_uuid(t, id);
	clock_format_ms(p->time_ms, time);
	time[23] = '\0';
	t->len = 0;
	say(t,
	    "{\"id\":\"%s\",\"version\":\"v2\",\"type\":\"%s\",\"timestamp\":\"%s%06uZ\","
	    "\"event_category\":\"%s\",\"event_label\":\"%s\",\"event_data\":{",
	    id, words[p->what].type, time, below(t, 1000000), words[p->what].category,
	    words[p->what].label);
	say_data(t, p);
	say_ids(t, p);
}

int traffic_next(struct traffic *t, struct traffic_delivery *ret)
{
	while (t->next_ms < INT64_MAX && (t->n == 0 || t->heap[0].received_ms >= t->next_ms)) {
		int r = begin_next(t);
		if (r < 0)
			return r;
	}
	if (t->n == 0)
		return 0;
	struct planned p = pop(t);
	say_event(t, &p);
	draw_uuid(t, t->delivery_id);
	bool by_executor = p.what == EXECUTED && !t->options.one_source;
	*ret = (struct traffic_delivery) {
		.source = by_executor ? "executors" : "e2b",
		.webhook_id = by_executor ? SPAN_ABSENT : E2B_WEBHOOK,
		.delivery_id =
			by_executor ? SPAN_ABSENT : (struct span) { t->delivery_id, UUID_TEXT - 1 },
		.received_unix_ms = p.received_ms,
		.body = { t->body, t->len },
	};
	if (--p.box->n_waiting == 0)
		free(p.box);
	return TRAFFIC_MORE;
}
