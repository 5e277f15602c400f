/* The whole way of a delivery whose signature is right. Input: a byte that chooses the scheme, the
 * horizon and the moment of receipt, a byte that chooses the filters, then the body, which is
 * signed here. Every verdict must be consistent with itself, and judging the body alone must agree.
 */
#include "fuzz_input.h"

#include "ingest.h"

#include <string.h>

#define RECEIVED_S INT64_C(1795341600) /* 2026-11-22T10:00:00Z */
#define HORIZON_S INT64_C(1787565600) /* 90 days before */

static const char *id_of(const void *ctx, struct span alias)
{
	return span_is(alias, SPAN_LITERAL("base")) ? "tpl1" : NULL;
}

static const char *alias_of(const void *ctx, struct span id)
{
	return span_is(id, SPAN_LITERAL("tpl1")) ? "base" : NULL;
}

/* Filters, two bits of the input each. */
static const char *const events[] = { "*", "created, killed", "!sandbox.lifecycle.*", "other" };
static const char *const template_lists[] = { "*", "base", "!tpl?", "*4*, !base" };
static const char *const teams[] = { "*", "?*", "!0*", "team" };

/* One keyring per scheme and one parsed policy, made when first asked for. */
static const struct ingest_policy *policy_of(enum signature_scheme scheme, unsigned int filters)
{
	static struct signature_keyring *keyrings[3];
	static struct ingest_policy policies[64];
	static bool ready[64];
	static const char text[] = "test-signature-secret";
	struct ingest_policy *p = &policies[filters];
	if (!ready[filters]) {
		check(glob_list_parse(&p->events, events[filters & 3]) == 0);
		check(glob_list_parse(&p->templates, template_lists[filters >> 2 & 3]) == 0);
		check(glob_list_parse(&p->teams, teams[filters >> 4 & 3]) == 0);
		ready[filters] = true;
	}
	if (!keyrings[scheme])
		check(signature_keyring_new(scheme, text, sizeof(text) - 1, &keyrings[scheme]) ==
		      0);
	p->keyring = keyrings[scheme];
	return p;
}

static bool is_filter(enum ingest_reason reason)
{
	return reason == INGEST_REASON_EVENTS || reason == INGEST_REASON_TEMPLATES ||
	       reason == INGEST_REASON_TEAMS;
}

static bool is_about_time(enum ingest_reason reason)
{
	return reason == INGEST_REASON_FUTURE || reason == INGEST_REASON_STALE;
}

static void check_result(const struct ingest_result *r)
{
	check((r->verdict == INGEST_STORE) == (r->reason == INGEST_REASON_NONE));
	check((r->verdict == INGEST_FILTERED) == is_filter(r->reason));
	check(r->has_event == (r->verdict == INGEST_STORE || r->verdict == INGEST_FILTERED ||
			       is_about_time(r->reason)));
	check(r->verdict != INGEST_REJECT || r->reason == INGEST_REASON_NOT_ONE_OBJECT);
	check((r->detail[0] != '\0') ==
	      (r->verdict == INGEST_QUARANTINE || r->verdict == INGEST_REJECT));
	check(strnlen(r->detail, sizeof(r->detail)) < sizeof(r->detail));
	for (const char *c = r->detail; *c; c++)
		check(*c >= 0x20 && *c < 0x7f);
	if (!r->has_event)
		return;
	check(r->doc && r->event.id[0] != '\0' && r->event.type.s);
	check(r->event.kind != EVENT_TEST || r->verdict != INGEST_FILTERED);
}

/* The same but for what only the scheme knows. */
static void check_agreement(const struct ingest_result *whole, const struct ingest_result *body,
			    enum signature_scheme scheme)
{
	bool forged = whole->verdict == INGEST_REJECT;
	check(!forged || scheme == SIGNATURE_E2B);
	check(body->verdict == (forged ? INGEST_QUARANTINE : whole->verdict));
	check(body->reason == whole->reason && strcmp(body->detail, whole->detail) == 0);
	check(whole->verified && !body->verified);
	check(!body->has_event || strcmp(whole->event.id, body->event.id) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	enum signature_scheme scheme = (enum signature_scheme)((data[0] & 3) % 3);
	int64_t horizon_s = data[0] & 4 ? HORIZON_S : 0;
	int64_t received_s = data[0] & 8 ? 0 : RECEIVED_S;
	const struct ingest_policy *policy = policy_of(scheme, data[1] & 63);
	const struct ingest_templates templates = { id_of, alias_of, NULL };
	struct ingest_delivery d = {
		.signed_part = { .id = SPAN_LITERAL("msg_1"),
				 .timestamp = SPAN_LITERAL("1795341600"),
				 .body = { (const char *)data + 2, size - 2 },
				 .now_unix_s = RECEIVED_S },
		.received_unix_ms = received_s * 1000,
	};
	char header[SIGNATURE_TEXT_MAX];
	check(signature_sign(policy->keyring, 1, &d.signed_part, header) == 0);
	d.signed_part.signature = (struct span) { header, strlen(header) };

	struct ingest_result whole, body;
	check(ingest_judge(&whole, policy, &templates, &d, horizon_s) == 0);
	check(ingest_judge_body(&body, policy, &templates, d.signed_part.body, d.received_unix_ms,
				horizon_s) == 0);
	check_result(&whole);
	check_result(&body);
	check_agreement(&whole, &body, scheme);
	ingest_result_finish(&whole);
	ingest_result_finish(&body);
	return 0;
}
