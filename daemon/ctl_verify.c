/* `sign` and `verify`: the same judging as the daemon's, over a captured body or a stored
 * rejection, and where the signature is not right, the doctor.
 */
#include "ctl_internal.h"

#include "clock.h"
#include "ingest.h"

#include <errno.h>
#include <string.h>

static void free_keyring(struct signature_keyring **keyring)
{
	signature_keyring_free(*keyring);
}

static int need_file(const char *command)
{
	ctl_complain("%s: which body? --file FILE, or --file - for standard input", command);
	return CTL_EXIT_USAGE;
}

/* ---- sign ---- */

static int sign(const struct config_source *source, const struct ctl_options *options,
		struct span body)
{
	CLEANUP(ctl_secrets_finish) struct ctl_secrets secrets = { .n = 0 };
	CLEANUP(free_keyring) struct signature_keyring *keyring = NULL;
	CLEANUP_FREE struct ctl_signed *signature = malloc(sizeof(*signature));
	char error[CTL_ERROR_MAX];

	if (!signature || ctl_secrets_read(source, &secrets, error) < 0 ||
	    ctl_secrets_keyring(source, &secrets, &keyring, error) < 0) {
		ctl_complain("%s", signature ? error : "out of memory");
		return CTL_EXIT_FAILED;
	}
	int r = ctl_secrets_sign(source, keyring, options->id, options->timestamp, body,
				 clock_unix_ms() / 1000, signature);
	if (r < 0) {
		ctl_complain("cannot sign: %s",
			     r == -EINVAL ? "--id or --timestamp is malformed" : strerror(-r));
		return CTL_EXIT_FAILED;
	}
	for (size_t i = 0; i < signature->n; i++)
		(void)printf("%s: %s\n", signature->headers[i].name, signature->headers[i].value);
	return 0;
}

int ctl_sign_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(buffer_finish) struct buffer body = BUFFER_INIT(CTL_FILE_MAX);
	const struct config_source *source;
	int code;

	if (!options->file)
		return need_file("sign");
	code = ctl_load_config(options, &config);
	if (code != 0)
		return code;
	source = ctl_find_source(config, options->source);
	if (!source)
		return CTL_EXIT_FAILED;
	if ((options->given & (CTL_ID | CTL_TIMESTAMP)) &&
	    source->scheme != SIGNATURE_STANDARD_WEBHOOKS) {
		ctl_complain("sign: [source %s] is not signed by standard-webhooks: no --id, no "
			     "--timestamp",
			     source->name);
		return CTL_EXIT_USAGE;
	}
	code = ctl_read_file(options->file, &body);
	if (code != 0)
		return code;
	return sign(source, options, (struct span) { body.data ? body.data : "", body.len });
}

/* ---- verify: what was received ---- */

struct received {
	const struct config_source *source;
	struct buffer body;
	struct buffer signature, id, timestamp;
	bool has_signature, has_id, has_timestamp;
	int64_t received_ms, horizon_s;
};

static void finish_received(struct received *r)
{
	buffer_finish(&r->body);
	buffer_finish(&r->signature);
	buffer_finish(&r->id);
	buffer_finish(&r->timestamp);
}

static struct span span_of(const struct buffer *b, bool present)
{
	return present ? (struct span) { b->data ? b->data : "", b->len } : SPAN_ABSENT;
}

static int keep(struct buffer *b, struct storage_value value, bool *ret_present)
{
	*ret_present = value.type == STORAGE_BYTES;
	return *ret_present ? buffer_append(b, value.text.s, value.text.len) : 0;
}

static int keep_option(struct buffer *b, const char *text, bool *ret_present)
{
	*ret_present = text != NULL;
	return text ? buffer_append_text(b, text) : 0;
}

static int copy_rejection(struct storage_reader *reader, const struct config *config,
			  struct received *ret)
{
	char name[80];
	struct storage_value v = storage_reader_value(reader, 0);
	bool has_body;
	int r;

	(void)snprintf(name, sizeof(name), "%.*s",
		       (int)base_min_size(v.type == STORAGE_BYTES ? v.text.len : 0, 79),
		       v.type == STORAGE_BYTES ? v.text.s : "");
	ret->source = ctl_find_source(config, name);
	if (!ret->source)
		return CTL_EXIT_FAILED;
	ret->received_ms = storage_reader_value(reader, 1).integer;
	r = keep(&ret->signature, storage_reader_value(reader, 2), &ret->has_signature);
	if (r == 0)
		r = keep(&ret->id, storage_reader_value(reader, 3), &ret->has_id);
	if (r == 0)
		r = keep(&ret->timestamp, storage_reader_value(reader, 4), &ret->has_timestamp);
	if (r == 0)
		r = keep(&ret->body, storage_reader_value(reader, 5), &has_body);
	if (r == 0 && has_body && ret->has_signature)
		return 0;
	if (r < 0) {
		ctl_complain("verify: %s", strerror(-r));
		return CTL_EXIT_FAILED;
	}
	v = storage_reader_value(reader, 6);
	ctl_complain("verify: nothing to verify: body and headers of this rejection were not kept "
		     "(%.*s)",
		     (int)v.text.len, v.text.s);
	return CTL_EXIT_FAILED;
}

static int load_rejection(const struct config *config, int64_t id, struct received *ret)
{
	static const char sql[] =
		"SELECT s.name, j.received_ms, j.signature, j.signature_id, "
		"j.signature_timestamp, j.payload, j.reason FROM rejection j JOIN "
		"source s USING (source_key) WHERE j.id = ?";
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	const struct storage_value key = STORAGE_VALUE_INTEGER(id);
	int code = ctl_open_store(config, &reader);

	if (code != 0)
		return code;
	int r = storage_reader_query(reader, sql, &key, 1);
	if (r == 0)
		r = storage_reader_next(reader);
	if (r == STORAGE_READER_ROW)
		return copy_rejection(reader, config, ret);
	if (r == 0)
		ctl_complain("verify: no rejection %lld: see e2b-hookctl rejections",
			     (long long)id);
	else
		ctl_complain("verify: %s", storage_reader_error(reader));
	return CTL_EXIT_FAILED;
}

static int load_file(const struct config *config, const struct ctl_options *options,
		     struct received *ret)
{
	int code, r;

	ret->source = ctl_find_source(config, options->source);
	if (!ret->source)
		return CTL_EXIT_FAILED;
	ret->received_ms = clock_unix_ms();
	code = ctl_read_file(options->file, &ret->body);
	if (code != 0)
		return code;
	r = keep_option(&ret->signature, options->signature, &ret->has_signature);
	if (r == 0)
		r = keep_option(&ret->id, options->id, &ret->has_id);
	if (r == 0)
		r = keep_option(&ret->timestamp, options->timestamp, &ret->has_timestamp);
	if (r == 0)
		return 0;
	ctl_complain("verify: a header value is too long");
	return CTL_EXIT_FAILED;
}

/* Where there is a store, what is stale is told as the daemon would. */
static void load_horizon(const struct config *config, struct received *ret)
{
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	char error[STORAGE_ERROR_MAX];

	if (storage_reader_open(config->store.path, &reader, error) < 0 ||
	    storage_reader_integers(reader, "SELECT horizon_s FROM position", &ret->horizon_s, 1) <
		    0)
		ret->horizon_s = 0;
}

/* ---- verify: what to say ---- */

static void print_match(const struct received *it, const struct signature_match *match,
			size_t n_secrets)
{
	bool is_base64 =
		match->form == SIGNATURE_FORM_BASE64 || match->form == SIGNATURE_FORM_BASE64URL;

	(void)printf("signature: right for source %s: scheme %s, %s%s, secret %u of %zu\n",
		     it->source->name, signature_scheme_name(it->source->scheme),
		     signature_form_name(match->form),
		     !is_base64	     ? ""
		     : match->padded ? " with padding"
				     : " without padding",
		     match->position, n_secrets);
}

static void print_body(const struct ingest_result *result)
{
	static const char *const verdicts[] = { [INGEST_STORE] = "stored",
						[INGEST_FILTERED] = "filtered",
						[INGEST_QUARANTINE] = "quarantined",
						[INGEST_REJECT] = "rejected" };

	(void)printf("body: would be %s", verdicts[result->verdict]);
	if (result->reason != INGEST_REASON_NONE)
		(void)printf(" (%s%s%s)", ingest_reason_name(result->reason),
			     result->detail[0] ? ": " : "", result->detail);
	if (result->has_event) {
		(void)printf(", event %s, kind %s, type ", result->event.id,
			     event_kind_name(result->event.kind));
		ctl_print_visible(stdout, result->event.type);
	}
	(void)printf("\n");
}

/* Every source's secrets are tried: a delivery may have come to the wrong path. */
static int diagnose(const struct config *config, const struct received *it, struct buffer *findings)
{
	struct ctl_secrets *secrets = calloc(config->n_sources, sizeof(*secrets));
	struct ctl_doctor_source *sources = calloc(config->n_sources, sizeof(*sources));
	const struct ctl_doctor_case the_case = { span_of(&it->signature, it->has_signature),
						  span_of(&it->body, true),
						  span_of(&it->id, it->has_id),
						  span_of(&it->timestamp, it->has_timestamp) };
	char error[CTL_ERROR_MAX];
	size_t n = 1;
	int r = secrets && sources ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < config->n_sources; i++) {
		const struct config_source *source = &config->sources[i];
		if (ctl_secrets_read(source, &secrets[i], error) < 0)
			continue;
		sources[source == it->source ? 0 : n++] =
			(struct ctl_doctor_source) { source, &secrets[i] };
	}
	if (r == 0)
		r = ctl_doctor_explain(findings, &the_case, sources, n);
	for (size_t i = 0; secrets && i < config->n_sources; i++)
		ctl_secrets_finish(&secrets[i]);
	free(secrets);
	free(sources);
	return r;
}

static int explain(const struct config *config, const struct received *it,
		   const struct ingest_result *result)
{
	CLEANUP(buffer_finish) struct buffer findings = BUFFER_INIT(65536);
	int r;

	(void)printf("signature: not accepted by source %s (%s%s%s)\n", it->source->name,
		     ingest_reason_name(result->reason), result->detail[0] ? ": " : "",
		     result->detail);
	r = diagnose(config, it, &findings);
	if (r < 0)
		ctl_complain("verify: %s", strerror(-r));
	else if (findings.len > 0)
		(void)fwrite(findings.data, 1, findings.len, stdout);
	return CTL_EXIT_FAILED;
}

static int judge(const struct config *config, const struct received *it)
{
	CLEANUP(ctl_secrets_finish) struct ctl_secrets secrets = { .n = 0 };
	CLEANUP(free_keyring) struct signature_keyring *keyring = NULL;
	CLEANUP(ingest_result_finish) struct ingest_result result = { .verdict = INGEST_REJECT };
	struct ingest_policy policy = it->source->policy;
	const struct ingest_delivery delivery = {
		.signed_part = { .signature = span_of(&it->signature, it->has_signature),
				 .id = span_of(&it->id, it->has_id),
				 .timestamp = span_of(&it->timestamp, it->has_timestamp),
				 .body = span_of(&it->body, true),
				 .now_unix_s = it->received_ms / 1000 },
		.received_unix_ms = it->received_ms,
	};
	char error[CTL_ERROR_MAX];

	if (ctl_secrets_read(it->source, &secrets, error) < 0 ||
	    ctl_secrets_keyring(it->source, &secrets, &keyring, error) < 0) {
		ctl_complain("%s", error);
		return CTL_EXIT_FAILED;
	}
	policy.keyring = keyring;
	int r = ingest_judge(&result, &policy, &config->lookup, &delivery, it->horizon_s);
	if (r < 0) {
		ctl_complain("verify: %s", strerror(-r));
		return CTL_EXIT_FAILED;
	}
	if (!result.verified)
		return explain(config, it, &result);
	print_match(it, &result.match, signature_keyring_count(keyring));
	print_body(&result);
	return result.verdict == INGEST_REJECT ? CTL_EXIT_FAILED : 0;
}

static int check_options(const struct ctl_options *o)
{
	unsigned int of_file = CTL_FILE | CTL_SOURCE | CTL_SIGNATURE | CTL_ID | CTL_TIMESTAMP;

	if ((o->given & CTL_REJECTION) && (o->given & of_file)) {
		ctl_complain("verify: --rejection has its own body, source and headers");
		return CTL_EXIT_USAGE;
	}
	if (!(o->given & CTL_REJECTION) && !o->file)
		return need_file("verify");
	if (!(o->given & CTL_REJECTION) && !o->signature) {
		ctl_complain("verify: which signature? --signature VALUE of its header");
		return CTL_EXIT_USAGE;
	}
	return 0;
}

int ctl_verify_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(finish_received)
	struct received it = { .body = BUFFER_INIT(CTL_FILE_MAX),
			       .signature = BUFFER_INIT(SIGNATURE_HEADER_MAX),
			       .id = BUFFER_INIT(SIGNATURE_HEADER_MAX),
			       .timestamp = BUFFER_INIT(SIGNATURE_HEADER_MAX) };
	int code = check_options(options);

	if (code == 0)
		code = ctl_load_config(options, &config);
	if (code == 0 && (options->given & CTL_REJECTION))
		code = load_rejection(config, options->rejection, &it);
	else if (code == 0)
		code = load_file(config, options, &it);
	if (code != 0)
		return code;
	load_horizon(config, &it);
	return judge(config, &it);
}
