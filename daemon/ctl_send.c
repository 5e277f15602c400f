/* `send`: what a platform would do, from here: build, sign, POST, over one connection. */
#include "ctl_internal.h"

#include "clock.h"
#include "hook_client.h"

#include <errno.h>
#include <string.h>

#define TIMEOUT_MS 30000

struct sending {
	const struct ctl_options *options;
	const struct config *config;
	const struct config_source *source;
	struct signature_keyring *keyring;
	struct hook_client *client;
	struct buffer file; /* empty: bodies are made */
	const char *path;
	bool all_ok;
};

static void finish_sending(struct sending *s)
{
	signature_keyring_free(s->keyring);
	hook_client_free(s->client);
	buffer_finish(&s->file);
}

/* ---- where to ---- */

/* An address to listen on is not always one to connect to. */
static const char *host_to_reach(const char *host)
{
	if (strcmp(host, "0.0.0.0") == 0)
		return "127.0.0.1";
	return strcmp(host, "::") == 0 ? "::1" : host;
}

static bool reach(const struct config_listen *listen, struct hook_client_target *ret)
{
	*ret = (struct hook_client_target) { .port = listen->port };
	switch (listen->kind) {
	case CONFIG_LISTEN_SYSTEMD:
		return false;
	case CONFIG_LISTEN_UNIX:
		if (strlen(listen->path) >= sizeof(ret->unix_path))
			return false;
		memcpy(ret->unix_path, listen->path, strlen(listen->path) + 1);
		return true;
	case CONFIG_LISTEN_TCP:
		(void)snprintf(ret->host, sizeof(ret->host), "%s", host_to_reach(listen->host));
		return listen->port != 0;
	}
	return false;
}

static int find_target(const struct sending *s, struct hook_client_target *ret)
{
	const char *url = s->options->url;
	int r = url ? hook_client_read_url(url, ret) : 0;

	if (r < 0) {
		ctl_complain("--url: %s: %s", url,
			     r == -EPROTONOSUPPORT
				     ? "https is the proxy's: give the listener behind it"
				     : "want http://host:port[/path] or unix:/path");
		return CTL_EXIT_USAGE;
	}
	if (url)
		return 0;
	for (size_t i = 0; i < s->config->server.n_listen; i++)
		if (reach(&s->config->server.listen[i], ret))
			return 0;
	ctl_complain("%s: no listener with an address that is known here: give it with --url",
		     s->config->path);
	return CTL_EXIT_FAILED;
}

/* ---- what ---- */

static int make_body(const struct sending *s, struct buffer *ret)
{
	const struct ctl_options *o = s->options;
	const struct config_template *row = NULL;
	struct ctl_body wanted = { .type = o->type,
				   .sandbox_id = o->sandbox,
				   .template_id = o->template_name,
				   .failed = o->failed,
				   .now_ms = clock_unix_ms() };

	if (o->template_name) {
		const struct span name = { o->template_name, strlen(o->template_name) };
		row = config_template_by_alias(s->config, name);
	} else if (s->config->n_templates > 0 && o->type) {
		row = &s->config->templates[0];
	}
	if (row)
		wanted.template_id = row->id;
	return ctl_body_append(ret, &wanted);
}

static void finish_answer(struct hook_client_answer *answer)
{
	buffer_finish(&answer->body);
}

static int post(struct sending *s, const struct hook_client_header *headers, size_t n,
		struct span body)
{
	CLEANUP(finish_answer) struct hook_client_answer answer = { .status = 0 };
	char error[HOOK_CLIENT_ERROR_MAX];

	if (hook_client_post(s->client, s->path, headers, n, body, &answer, error) < 0) {
		ctl_complain("%s", error);
		return CTL_EXIT_FAILED;
	}
	struct span text = { answer.body.data, answer.body.len };
	while (text.len > 0 && (text.s[text.len - 1] == '\n' || text.s[text.len - 1] == '\r'))
		text.len--;
	(void)printf("%u ", answer.status);
	ctl_print_visible(stdout, text);
	(void)printf("\n");
	s->all_ok = s->all_ok && answer.status == 200;
	return 0;
}

static int send_body(struct sending *s, struct span body)
{
	CLEANUP_FREE struct ctl_signed *signature = malloc(sizeof(*signature));
	struct hook_client_header headers[8] = { { "Content-Type", "application/json" } };
	char delivery_id[CTL_UUID_MAX];
	size_t n = 1;

	if (!signature || ctl_make_uuid(delivery_id) < 0 ||
	    ctl_secrets_sign(s->source, s->keyring, NULL, NULL, body, clock_unix_ms() / 1000,
			     signature) < 0) {
		ctl_complain("cannot sign the body");
		return CTL_EXIT_FAILED;
	}
	for (size_t i = 0; i < signature->n; i++)
		headers[n++] = (struct hook_client_header) { signature->headers[i].name,
							     signature->headers[i].value };
	if (s->source->scheme == SIGNATURE_E2B) {
		headers[n++] = (struct hook_client_header) { "e2b-delivery-id", delivery_id };
		headers[n++] = (struct hook_client_header) { "e2b-signature-version", "v1" };
	}
	return post(s, headers, n, body);
}

static int send_one(struct sending *s)
{
	CLEANUP(buffer_finish) struct buffer body = BUFFER_INIT(CTL_FILE_MAX);

	if (s->options->file)
		return send_body(s,
				 (struct span) { s->file.data ? s->file.data : "", s->file.len });
	if (make_body(s, &body) < 0) {
		ctl_complain("cannot make a body");
		return CTL_EXIT_FAILED;
	}
	return send_body(s, (struct span) { body.data, body.len });
}

/* ---- */

static int prepare(struct sending *s, struct hook_client_target *target)
{
	CLEANUP(ctl_secrets_finish) struct ctl_secrets secrets = { .n = 0 };
	char error[CTL_ERROR_MAX];
	int code;

	s->source = ctl_find_source(s->config, s->options->source);
	if (!s->source)
		return CTL_EXIT_FAILED;
	code = find_target(s, target);
	if (code == 0 && s->options->file)
		code = ctl_read_file(s->options->file, &s->file);
	if (code != 0)
		return code;
	if (ctl_secrets_read(s->source, &secrets, error) < 0 ||
	    ctl_secrets_keyring(s->source, &secrets, &s->keyring, error) < 0) {
		ctl_complain("%s", error);
		return CTL_EXIT_FAILED;
	}
	if (hook_client_new(target, TIMEOUT_MS, &s->client) < 0) {
		ctl_complain("out of memory");
		return CTL_EXIT_FAILED;
	}
	s->path = target->path[0] ? target->path : s->source->path;
	return 0;
}

static int check_options(const struct ctl_options *o)
{
	if (o->file && (o->given & (CTL_TYPE | CTL_TEMPLATE | CTL_SANDBOX | CTL_FAILED))) {
		ctl_complain("send: --file is sent as it is: no --type, --template, --sandbox or "
			     "--failed beside it");
		return CTL_EXIT_USAGE;
	}
	if (o->failed && (!o->type || !strstr(o->type, "code_executed"))) {
		ctl_complain("send: --failed goes with --type code_executed");
		return CTL_EXIT_USAGE;
	}
	return 0;
}

int ctl_send_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(finish_sending)
	struct sending s = { .options = options,
			     .all_ok = true,
			     .file = BUFFER_INIT(CTL_FILE_MAX) };
	struct hook_client_target target;
	int code = check_options(options);

	if (code == 0)
		code = ctl_load_config(options, &config);
	if (code != 0)
		return code;
	s.config = config;
	code = prepare(&s, &target);
	for (int64_t i = 0; code == 0 && i < options->count; i++)
		code = send_one(&s);
	return code == 0 && !s.all_ok ? CTL_EXIT_FAILED : code;
}
