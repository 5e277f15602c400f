/* Sends one notification through alert_target_send, or prints what would be sent.
 *
 *   send_alert KIND URL-OR-COMMAND [NAME=VALUE…]      prints `outcome retry_after_ms took_ms
 * reason` send_alert render KIND [NAME=VALUE…]              prints the body
 *
 * Names: the texts of a message (id, rule, on, severity, template, summary, query, instance),
 * state, count, total, value, starts, ends, made (unix ms), samples (how many), error (the error
 * text of each sample), secrets (a file), timeout (ms), stop (ms until the stop flag is set). Not
 * installed: tests drive the transport with it.
 */
#include "alert_payload.h"
#include "alert_target.h"
#include "clock.h"
#include "signature.h"

#include <err.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

static struct alert_sample samples[ALERT_SAMPLES_MAX + 3];
static struct alert_message message = {
	.id = "ntf_cb848d685a3e63f9e7b571bd1109d089",
	.rule = "failures",
	.on = "execution_failed",
	.severity = "warning",
	.template = "tta-ml-minimal",
	.summary = "1 execution failed in tta-ml-minimal",
	.query = "e2b-hookctl failures --since 2025-11-22T09:59:00.000Z --template "
		 "k3v9x2m7q1w8e5r4t6y0",
	.instance = "hookd.example.org",
	.starts_unix_ms = 1763805600000,
	.made_unix_ms = 1763805601500,
	.count = 1,
	.total = 1,
	.value = NAN,
	.threshold = NAN,
	.unit = "events",
	.samples = samples,
	.n_samples = 1,
};
static struct notify_target target = { .name = "test", .timeout_ms = 5000 };
static struct signature_keyring *keyring;
static atomic_bool stop;
static int64_t stop_ms;

static const char *const kinds[] = {
	[NOTIFY_WEBHOOK] = "webhook",
	[NOTIFY_SLACK] = "slack",
	[NOTIFY_ALERTMANAGER] = "alertmanager",
	[NOTIFY_COMMAND] = "command",
};

static enum notify_kind kind_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(name, kinds[i]) == 0)
			return (enum notify_kind)i;
	errx(2, "no such kind: %s", name);
}

static void fill_samples(const char *error)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
		samples[i] = (struct alert_sample) {
			.seq = 41 + (int64_t)i,
			.time_unix_ms = 1763805600250,
			.event_id = "0b9c3a52-6f0e-4d9b-8a55-2f1f4f4f8d01",
			.execution_id = "exec-1",
			.sandbox_id = "iabcdefghij0123456789",
			.run_id = NULL,
			.status = "error",
			.error_name = "ValueError",
			.error_value = error,
		};
}

static void set_state(const char *name)
{
	for (int i = ALERT_FIRING; i <= ALERT_TEST; i++)
		if (strcmp(name, alert_payload_state_name((enum alert_state)i)) == 0)
			message.state = (enum alert_state)i;
}

static void load_secrets(const char *path)
{
	char text[4096];
	CLEANUP_FILE FILE *f = fopen(path, "re");

	if (!f)
		err(1, "%s", path);
	size_t len = fread(text, 1, sizeof(text), f);
	if (signature_keyring_new(SIGNATURE_STANDARD_WEBHOOKS, text, len, &keyring) != 0)
		errx(1, "no secrets in %s", path);
	target.keyring = keyring;
}

static void set_option(char *option)
{
	const struct {
		const char *name, **text;
		int64_t *number;
	} options[] = {
		{ "id", &message.id, NULL },
		{ "rule", &message.rule, NULL },
		{ "on", &message.on, NULL },
		{ "severity", &message.severity, NULL },
		{ "template", &message.template, NULL },
		{ "summary", &message.summary, NULL },
		{ "query", &message.query, NULL },
		{ "instance", &message.instance, NULL },
		{ "starts", NULL, &message.starts_unix_ms },
		{ "ends", NULL, &message.ends_unix_ms },
		{ "made", NULL, &message.made_unix_ms },
		{ "count", NULL, &message.count },
		{ "total", NULL, &message.total },
		{ "timeout", NULL, &target.timeout_ms },
		{ "stop", NULL, &stop_ms },
	};
	char *value = strchr(option, '=');

	if (!value)
		errx(2, "NAME=VALUE, not %s", option);
	*value++ = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (strcmp(option, options[i].name) != 0)
			continue;
		if (options[i].text)
			*options[i].text = *value ? value : NULL;
		else
			*options[i].number = strtoll(value, NULL, 10);
		return;
	}
	if (strcmp(option, "state") == 0)
		set_state(value);
	else if (strcmp(option, "value") == 0)
		message.value = strtod(value, NULL);
	else if (strcmp(option, "samples") == 0)
		message.n_samples = strtoul(value, NULL, 10);
	else if (strcmp(option, "error") == 0)
		fill_samples(value);
	else if (strcmp(option, "secrets") == 0)
		load_secrets(value);
	else
		errx(2, "no such option: %s", option);
}

static int render(const char *kind)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(ALERT_PAYLOAD_MAX);
	int r = 0;

	switch (kind_of(kind)) {
	case NOTIFY_WEBHOOK:
	case NOTIFY_COMMAND:
		r = alert_payload_webhook(&message, &b);
		break;
	case NOTIFY_SLACK:
		r = alert_payload_slack(&message, &b);
		break;
	case NOTIFY_ALERTMANAGER:
		r = alert_payload_alertmanager(&message, &b);
		break;
	}
	if (r != 0)
		errx(1, "render: %s", strerrordesc_np(-r));
	return fwrite(b.data, 1, b.len, stdout) == b.len ? 0 : 1;
}

static void *set_stop(void *unused)
{
	const struct timespec ts = { stop_ms / 1000, stop_ms % 1000 * 1000000 };

	(void)unused;
	(void)nanosleep(&ts, NULL);
	atomic_store(&stop, true);
	return NULL;
}

static int send_it(void)
{
	static const char *const outcomes[] = { "sent", "temporary", "permanent" };
	struct notify_result result;
	pthread_t thread;
	bool has_thread = stop_ms > 0 && pthread_create(&thread, NULL, set_stop, NULL) == 0;
	int64_t begin_ms = clock_mono_ms();

	alert_target_send(&target, &message, &stop, &result);
	long long took_ms = clock_mono_ms() - begin_ms;
	if (has_thread)
		(void)pthread_join(thread, NULL);
	(void)printf("%s %lld %lld %s\n", outcomes[result.outcome],
		     (long long)result.retry_after_ms, took_ms, result.reason);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		errx(2, "usage: send_alert KIND URL-OR-COMMAND [NAME=VALUE…] | render KIND …");
	fill_samples("invalid literal for int() with base 10: 'x'");
	for (int i = 3; i < argc; i++)
		set_option(argv[i]);
	if (strcmp(argv[1], "render") == 0)
		return render(argv[2]);
	target.kind = kind_of(argv[1]);
	target.url = target.command = argv[2];
	int r = send_it();
	signature_keyring_free(keyring);
	return r;
}
