/* Signatures: what senders send is accepted in every form they use, everything else is refused
 * under the right name. The expected values were made with Python's hashlib, hmac and base64.
 */
#include "signature.h"

#include "scarce.h"
#include "signature_text.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>

#include <cmocka.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#define SECRET "test-signature-secret"
#define NOW 1700000000
#define HMAC_HEX "1b85d30f253efdbd7bf9ee38d5053f6ace7c50f8b6cb0f0b7c56c157fc2f0219"
#define HMAC_HEX_UPPER "1B85D30F253EFDBD7BF9EE38D5053F6ACE7C50F8B6CB0F0B7C56C157FC2F0219"
#define HMAC_BASE64 "G4XTDyU+/b17+e441QU/as58UPi2yw8LfFbBV/wvAhk"
#define HMAC_BASE64URL "G4XTDyU-_b17-e441QU_as58UPi2yw8LfFbBV_wvAhk"
#define E2B_BASE64 "Kgx/wquw73LEkJt4BpsYsW2ugtH8sqf8+pcz+RCv1Hs"
#define E2B_BASE64URL "Kgx_wquw73LEkJt4BpsYsW2ugtH8sqf8-pcz-RCv1Hs"
#define WEBHOOK_BASE64 "HgS9OjG7Nc23JCoUrwk92HVXFwCNg/PC9LbE6hYd4mQ="

static struct span span_of(const char *text)
{
	return (struct span) { text, text ? strlen(text) : 0 };
}

static void free_keyring(struct signature_keyring **keyring)
{
	signature_keyring_free(*keyring);
}
#define AUTO_KEYRING CLEANUP(free_keyring) struct signature_keyring *

static struct signature_keyring *keyring_of(enum signature_scheme scheme, const char *secrets)
{
	struct signature_keyring *keyring = NULL;
	assert_int_equal(signature_keyring_new(scheme, secrets, strlen(secrets), &keyring), 0);
	assert_non_null(keyring);
	return keyring;
}

/* The body that belongs to the values above. */
static struct signature_input input_for(enum signature_scheme scheme, const char *header)
{
	return (struct signature_input) {
		.signature = span_of(header),
		.id = span_of("msg_1"),
		.timestamp = span_of("1700000000"),
		.body = span_of(scheme == SIGNATURE_HMAC_SHA256 ? "{\"id\":\"1\"}"
								: "{\"id\":\"11\"}"),
		.now_unix_s = NOW,
	};
}

static int verify_header(enum signature_scheme scheme, const char *header,
			 struct signature_match *ret)
{
	AUTO_KEYRING keyring = keyring_of(scheme, SECRET);
	struct signature_input input = input_for(scheme, header);
	return signature_verify(keyring, &input, ret);
}

struct form_case {
	const char *header;
	int outcome;
	enum signature_form form;
	bool padded;
};

static void expect_forms(enum signature_scheme scheme, const struct form_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct signature_match match = { 0 };
		int r = verify_header(scheme, cases[i].header, &match);
		if (r != cases[i].outcome)
			fail_msg("%d instead of %d for '%s'", r, cases[i].outcome,
				 cases[i].header ? cases[i].header : "(absent)");
		if (r != 0)
			continue;
		assert_int_equal(match.position, 1);
		assert_int_equal(match.form, cases[i].form);
		assert_int_equal(match.padded, cases[i].padded);
	}
}

static void accepts_the_forms_of_e2b_and_nothing_else(void **state)
{
	static const struct form_case cases[] = {
		{ E2B_BASE64, 0, SIGNATURE_FORM_BASE64, false },
		{ E2B_BASE64 "=", 0, SIGNATURE_FORM_BASE64, true },
		{ E2B_BASE64URL, 0, SIGNATURE_FORM_BASE64URL, false },
		{ E2B_BASE64URL "=", 0, SIGNATURE_FORM_BASE64URL, true },
		{ " \t" E2B_BASE64 "\t ", 0, SIGNATURE_FORM_BASE64, false },
		{ NULL, SIGNATURE_MISSING },
		{ "", SIGNATURE_MISSING },
		{ " \t ", SIGNATURE_MISSING },
		{ "=", SIGNATURE_MALFORMED },
		{ E2B_BASE64 "==", SIGNATURE_MALFORMED },
		{ E2B_BASE64 "A", SIGNATURE_MALFORMED },
		{ E2B_BASE64 "A=", SIGNATURE_MALFORMED },
		{ E2B_BASE64 "\n", SIGNATURE_MALFORMED },
		{ E2B_BASE64 "," E2B_BASE64, SIGNATURE_MALFORMED },
		{ "sha256=" E2B_BASE64, SIGNATURE_MALFORMED },
		{ "v1," E2B_BASE64, SIGNATURE_MALFORMED },
		/* one character short, mixed alphabets, a blank inside, unused bits set */
		{ "Kgx/wquw73LEkJt4BpsYsW2ugtH8sqf8+pcz+RCv1H", SIGNATURE_MALFORMED },
		{ "Kgx/wquw73LEkJt4BpsYsW2ugtH8sqf8+pcz+RCv1H==", SIGNATURE_MALFORMED },
		{ "Kgx/wquw73LEkJt4BpsYsW2ugtH8sqf8-pcz+RCv1Hs", SIGNATURE_MALFORMED },
		{ "Kgx/wquw73LEkJt4 BpsYsW2ugtH8sqf8+pcz+RCv1H", SIGNATURE_MALFORMED },
		{ "Kgx/wquw73LEkJt4BpsYsW2ugtH8sqf8+pcz+RCv1Ht", SIGNATURE_MALFORMED },
		/* the right digest in hex */
		{ "2a0c7fc2abb0ef72c4909b78069b18b16dae82d1fcb2a7fcfa9733f910afd47b",
		  SIGNATURE_MALFORMED },
		{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", SIGNATURE_WRONG },
	};
	expect_forms(SIGNATURE_E2B, cases, ARRAY_SIZE(cases));
}

static void accepts_the_forms_of_hmac_and_nothing_else(void **state)
{
	static const struct form_case cases[] = {
		{ HMAC_HEX, 0, SIGNATURE_FORM_HEX, false },
		{ HMAC_HEX_UPPER, 0, SIGNATURE_FORM_HEX, false },
		{ "sha256=" HMAC_HEX, 0, SIGNATURE_FORM_HEX_PREFIXED, false },
		{ "SHA256=" HMAC_HEX_UPPER, 0, SIGNATURE_FORM_HEX_PREFIXED, false },
		{ HMAC_BASE64, 0, SIGNATURE_FORM_BASE64, false },
		{ HMAC_BASE64 "=", 0, SIGNATURE_FORM_BASE64, true },
		{ HMAC_BASE64URL, 0, SIGNATURE_FORM_BASE64URL, false },
		{ "sha256=" HMAC_BASE64 "=", 0, SIGNATURE_FORM_BASE64, true },
		{ " sha256=" HMAC_HEX "\t", 0, SIGNATURE_FORM_HEX_PREFIXED, false },
		{ NULL, SIGNATURE_MISSING },
		{ "sha256=", SIGNATURE_MALFORMED },
		{ "sha256", SIGNATURE_MALFORMED },
		{ "sha1=" HMAC_HEX, SIGNATURE_MALFORMED },
		{ "sha256=sha256=" HMAC_HEX, SIGNATURE_MALFORMED },
		{ "sha256= " HMAC_HEX, SIGNATURE_MALFORMED },
		{ HMAC_HEX "0", SIGNATURE_MALFORMED },
		{ "0x" HMAC_HEX, SIGNATURE_MALFORMED },
		{ "g" HMAC_HEX, SIGNATURE_MALFORMED },
		{ E2B_BASE64, SIGNATURE_WRONG },
	};
	expect_forms(SIGNATURE_HMAC_SHA256, cases, ARRAY_SIZE(cases));
}

static void takes_hexadecimal_digits_and_not_their_neighbours(void **state)
{
	for (size_t at = 0; at < 2; at++) {
		for (const char *c = "/:@G`g"; *c; c++) {
			char header[] = HMAC_HEX;
			struct signature_match match;
			header[at] = *c;
			assert_int_equal(verify_header(SIGNATURE_HMAC_SHA256, header, &match),
					 SIGNATURE_MALFORMED);
		}
	}
}

static void accepts_any_good_entry_of_a_standard_webhooks_header(void **state)
{
	static const struct form_case cases[] = {
		{ "v1," WEBHOOK_BASE64, 0, SIGNATURE_FORM_BASE64, true },
		{ "v1a,whatever v1," WEBHOOK_BASE64, 0, SIGNATURE_FORM_BASE64, true },
		{ "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= v1," WEBHOOK_BASE64, 0,
		  SIGNATURE_FORM_BASE64, true },
		{ "v1,short  v1," WEBHOOK_BASE64 " v2,", 0, SIGNATURE_FORM_BASE64, true },
		/* the sixteenth entry is the last one looked at */
		{ "a b c d e f g h i j k l m n o v1," WEBHOOK_BASE64, 0, SIGNATURE_FORM_BASE64,
		  true },
		{ "a b c d e f g h i j k l m n o p v1," WEBHOOK_BASE64, SIGNATURE_MALFORMED },
		{ NULL, SIGNATURE_MISSING },
		{ " ", SIGNATURE_MISSING },
		{ WEBHOOK_BASE64, SIGNATURE_MALFORMED },
		{ "v1", SIGNATURE_MALFORMED },
		{ "v1,", SIGNATURE_MALFORMED },
		{ "V1," WEBHOOK_BASE64, SIGNATURE_MALFORMED },
		{ "v1a," WEBHOOK_BASE64, SIGNATURE_MALFORMED },
		{ "v1, " WEBHOOK_BASE64, SIGNATURE_MALFORMED },
		{ "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", SIGNATURE_WRONG },
	};
	expect_forms(SIGNATURE_STANDARD_WEBHOOKS, cases, ARRAY_SIZE(cases));
}

static void agrees_with_the_published_vector_of_standard_webhooks(void **state)
{
	const struct signature_input input = {
		.signature = span_of("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
		.id = span_of("msg_p5jXN8AQM9LWM0D4loKWxJek"),
		.timestamp = span_of("1614265330"),
		.body = span_of("{\"test\": 2432232314}"),
		.now_unix_s = 1614265330,
	};
	AUTO_KEYRING keyring =
		keyring_of(SIGNATURE_STANDARD_WEBHOOKS, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
	struct signature_match match;
	assert_int_equal(signature_verify(keyring, &input, &match), 0);
	char text[SIGNATURE_TEXT_MAX];
	assert_int_equal(signature_sign(keyring, 1, &input, text), 0);
	assert_true(span_is(span_of(text), input.signature));
}

static void refuses_a_webhook_id_that_is_not_plain(void **state)
{
	assert_false(signature_text_is_id(SPAN_LITERAL("")));
	static const struct {
		const char *id;
		int outcome;
	} cases[] = {
		{ "msg_1", 0 },
		{ " msg_1\t", 0 },
		{ NULL, SIGNATURE_MISSING },
		{ "", SIGNATURE_MISSING },
		{ " ", SIGNATURE_MISSING },
		{ "msg_2", SIGNATURE_WRONG },
		{ "msg 1", SIGNATURE_MALFORMED },
		{ "msg.1", SIGNATURE_MALFORMED },
		{ "msg\x01", SIGNATURE_MALFORMED },
		{ "msg\x7f", SIGNATURE_MALFORMED },
		{ "ms\xc3\xa9", SIGNATURE_MALFORMED },
	};
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_STANDARD_WEBHOOKS, SECRET);
	struct signature_match match;
	struct signature_input input = input_for(SIGNATURE_STANDARD_WEBHOOKS, "v1," WEBHOOK_BASE64);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		input.id = span_of(cases[i].id);
		assert_int_equal(signature_verify(keyring, &input, &match), cases[i].outcome);
	}
	char long_id[258];
	memset(long_id, 'x', sizeof(long_id));
	input.id = (struct span) { long_id, 256 };
	assert_int_equal(signature_verify(keyring, &input, &match), SIGNATURE_WRONG);
	input.id.len = 257;
	assert_int_equal(signature_verify(keyring, &input, &match), SIGNATURE_MALFORMED);
}

static void refuses_a_webhook_timestamp_that_is_not_a_number(void **state)
{
	int64_t none;
	assert_false(signature_text_read_timestamp(SPAN_LITERAL(""), &none));
	static const struct {
		const char *timestamp;
		int outcome;
	} cases[] = {
		{ "1700000000", 0 },
		{ "1700000000 ", 0 },
		{ NULL, SIGNATURE_MISSING },
		{ "", SIGNATURE_MISSING },
		{ "99999999999", SIGNATURE_WRONG },
		{ "01700000000", SIGNATURE_WRONG },
		{ "001700000000", SIGNATURE_MALFORMED },
		{ "+1700000000", SIGNATURE_MALFORMED },
		{ "-1700000000", SIGNATURE_MALFORMED },
		{ "1700000000.0", SIGNATURE_MALFORMED },
		{ "17e8", SIGNATURE_MALFORMED },
	};
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_STANDARD_WEBHOOKS, SECRET);
	struct signature_match match;
	struct signature_input input = input_for(SIGNATURE_STANDARD_WEBHOOKS, "v1," WEBHOOK_BASE64);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		input.timestamp = span_of(cases[i].timestamp);
		assert_int_equal(signature_verify(keyring, &input, &match), cases[i].outcome);
	}
}

static void tolerates_five_minutes_either_way(void **state)
{
	static const struct {
		int64_t now;
		int outcome;
	} cases[] = {
		{ NOW - 300, 0 },
		{ NOW + 300, 0 },
		{ NOW - 301, SIGNATURE_EXPIRED },
		{ NOW + 301, SIGNATURE_EXPIRED },
		{ 0, SIGNATURE_EXPIRED },
	};
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_STANDARD_WEBHOOKS, SECRET);
	struct signature_match match;
	struct signature_input input = input_for(SIGNATURE_STANDARD_WEBHOOKS, "v1," WEBHOOK_BASE64);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		input.now_unix_s = cases[i].now;
		assert_int_equal(signature_verify(keyring, &input, &match), cases[i].outcome);
	}
	input.body = span_of("{}");
	assert_int_equal(signature_verify(keyring, &input, &match), SIGNATURE_WRONG);
}

static void a_header_over_its_limit_is_malformed(void **state)
{
	char header[SIGNATURE_HEADER_MAX + 2];
	memset(header, ' ', sizeof(header));
	memcpy(header, E2B_BASE64, sizeof(E2B_BASE64) - 1);
	header[SIGNATURE_HEADER_MAX] = '\0';
	struct signature_match match;
	assert_int_equal(verify_header(SIGNATURE_E2B, header, &match), 0);
	header[SIGNATURE_HEADER_MAX] = ' ';
	header[SIGNATURE_HEADER_MAX + 1] = '\0';
	assert_int_equal(verify_header(SIGNATURE_E2B, header, &match), SIGNATURE_MALFORMED);
}

static void rejects_every_flipped_bit_of_a_body_and_its_signature(void **state)
{
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_E2B, SECRET);
	char body[100], header[SIGNATURE_TEXT_MAX];
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (char)(i * 37 + 1);
	struct signature_input input = { .body = { body, sizeof(body) }, .now_unix_s = NOW };
	struct signature_match match;
	assert_int_equal(signature_sign(keyring, 1, &input, header), 0);
	input.signature = span_of(header);
	assert_int_equal(input.signature.len, 43);
	unsigned int rejected = 0;
	for (size_t bit = 0; bit < 8 * sizeof(body); bit++) {
		body[bit / 8] = (char)(body[bit / 8] ^ 1 << bit % 8);
		rejected += signature_verify(keyring, &input, &match) == SIGNATURE_WRONG;
		body[bit / 8] = (char)(body[bit / 8] ^ 1 << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * 43; bit++) {
		header[bit / 8] = (char)(header[bit / 8] ^ 1 << bit % 8);
		rejected += signature_verify(keyring, &input, &match) > 0;
		header[bit / 8] = (char)(header[bit / 8] ^ 1 << bit % 8);
	}
	assert_int_equal(rejected, 8 * (sizeof(body) + 43));
	assert_int_equal(signature_verify(keyring, &input, &match), 0);
}

static void rejects_a_body_that_was_cut_or_continued(void **state)
{
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_E2B, SECRET);
	struct signature_input input = input_for(SIGNATURE_E2B, E2B_BASE64);
	struct signature_match match;
	static const char longer[] = "{\"id\":\"11\"}\0";
	for (size_t len = 0; len < sizeof(longer); len++) {
		input.body = (struct span) { longer, len };
		assert_int_equal(signature_verify(keyring, &input, &match),
				 len == 11 ? 0 : SIGNATURE_WRONG);
	}
	input.body = SPAN_ABSENT;
	assert_int_equal(signature_verify(keyring, &input, &match), SIGNATURE_WRONG);
}

static void a_secret_may_not_slide_into_the_body(void **state)
{
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_E2B, SECRET "{");
	struct signature_input input = input_for(SIGNATURE_E2B, E2B_BASE64);
	struct signature_match match;
	assert_int_equal(signature_verify(keyring, &input, &match), SIGNATURE_WRONG);
	/* Inherent to hashing secret || body: hence one object and nothing else is a body. */
	input.body = span_of("\"id\":\"11\"}");
	assert_int_equal(signature_verify(keyring, &input, &match), 0);
}

static void says_which_of_several_secrets_matched(void **state)
{
	static const enum signature_scheme all[] = { SIGNATURE_E2B, SIGNATURE_HMAC_SHA256,
						     SIGNATURE_STANDARD_WEBHOOKS };
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		AUTO_KEYRING keyring = keyring_of(all[i], "one\ntwo\nthree\nfour\ntwo\nsix\n7\n8");
		assert_int_equal(signature_keyring_count(keyring), 8);
		for (unsigned int position = 1; position <= 8; position++) {
			char header[SIGNATURE_TEXT_MAX];
			struct signature_input input = input_for(all[i], NULL);
			struct signature_match match = { 0 };
			assert_int_equal(signature_sign(keyring, position, &input, header), 0);
			input.signature = span_of(header);
			assert_int_equal(signature_verify(keyring, &input, &match), 0);
			/* The fifth secret is the second once more: the lowest one counts. */
			assert_int_equal(match.position, position == 5 ? 2 : position);
		}
	}
}

static void reads_secrets_a_line_each(void **state)
{
	static const char text[] = "\xef\xbb\xbf\n  first # one \r\n\r\n\t\n\tsecond\t\nthird";
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_E2B, text);
	assert_int_equal(signature_keyring_count(keyring), 3);
	assert_int_equal(signature_keyring_shortest(keyring), 5);
	assert_int_equal(signature_keyring_scheme(keyring), SIGNATURE_E2B);
	static const char *const alone[] = { "first # one", "second", "third" };
	for (unsigned int i = 0; i < 3; i++) {
		char expected[SIGNATURE_TEXT_MAX], got[SIGNATURE_TEXT_MAX];
		struct signature_input input = input_for(SIGNATURE_E2B, NULL);
		AUTO_KEYRING single = keyring_of(SIGNATURE_E2B, alone[i]);
		assert_int_equal(signature_sign(single, 1, &input, expected), 0);
		assert_int_equal(signature_sign(keyring, i + 1, &input, got), 0);
		assert_string_equal(got, expected);
	}
}

static void reads_a_secret_without_reading_past_the_text(void **state)
{
	char *text = malloc(6);
	assert_non_null(text);
	memcpy(text, "secret", 6);
	struct signature_keyring *keyring = NULL;
	assert_int_equal(signature_keyring_new(SIGNATURE_HMAC_SHA256, text, 6, &keyring), 0);
	free(text);
	assert_int_equal(signature_keyring_shortest(keyring), 6);
	signature_keyring_free(keyring);
}

static void refuses_secrets_that_cannot_be_meant(void **state)
{
	static const struct {
		enum signature_scheme scheme;
		struct span text;
		int result;
	} cases[] = {
		{ SIGNATURE_E2B, { "nul\0inside", 10 }, -EINVAL },
		{ SIGNATURE_E2B, { "tab\tinside", 10 }, -EINVAL },
		{ SIGNATURE_E2B, { "delete\x7f", 7 }, -EINVAL },
		{ SIGNATURE_E2B, { "carriage\rreturn", 15 }, -EINVAL },
		{ SIGNATURE_E2B, { "1\n2\n3\n4\n5\n6\n7\n8\n9", 17 }, -E2BIG },
		{ SIGNATURE_STANDARD_WEBHOOKS, { "whsec_", 6 }, -EINVAL },
		{ SIGNATURE_STANDARD_WEBHOOKS, { "whsec_====", 10 }, -EINVAL },
		{ SIGNATURE_STANDARD_WEBHOOKS, { "whsec_AAAAA", 11 }, -EINVAL },
		{ SIGNATURE_STANDARD_WEBHOOKS, { "whsec_AAA*", 10 }, -EINVAL },
		{ SIGNATURE_STANDARD_WEBHOOKS, { "whsec_AA=", 9 }, -EINVAL },
		{ SIGNATURE_STANDARD_WEBHOOKS, { "whsec_+-AA", 10 }, -EINVAL },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct signature_keyring *keyring = NULL;
		assert_int_equal(signature_keyring_new(cases[i].scheme, cases[i].text.s,
						       cases[i].text.len, &keyring),
				 cases[i].result);
		assert_null(keyring);
	}
}

static void refuses_a_secret_over_its_limit(void **state)
{
	char text[SIGNATURE_SECRET_MAX + 1];
	memset(text, 's', sizeof(text));
	struct signature_keyring *keyring = NULL;
	assert_int_equal(signature_keyring_new(SIGNATURE_E2B, text, sizeof(text), &keyring),
			 -EINVAL);
	assert_int_equal(signature_keyring_new(SIGNATURE_E2B, text, sizeof(text) - 1, &keyring), 0);
	assert_int_equal(signature_keyring_shortest(keyring), SIGNATURE_SECRET_MAX);
	signature_keyring_free(keyring);
}

static void a_keyring_without_secrets_matches_nothing(void **state)
{
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_E2B, " \n\r\n");
	assert_int_equal(signature_keyring_count(keyring), 0);
	assert_int_equal(signature_keyring_shortest(keyring), 0);
	/* SHA-256 of the empty text, which an empty secret would make of an empty body. */
	struct signature_input input = { .now_unix_s = NOW };
	input.signature = span_of("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
	struct signature_match match;
	assert_int_equal(signature_verify(keyring, &input, &match), SIGNATURE_WRONG);
	char text[SIGNATURE_TEXT_MAX];
	assert_int_equal(signature_sign(keyring, 1, &input, text), -ENOENT);
}

static void decodes_whsec_under_standard_webhooks_only(void **state)
{
	static const char *const same[] = { "whsec_c2VjcmV0IQ==", "whsec_c2VjcmV0IQ",
					    "whsec_c2VjcmV0IR", "secret!" };
	char first[SIGNATURE_TEXT_MAX], text[SIGNATURE_TEXT_MAX];
	struct signature_input input = input_for(SIGNATURE_STANDARD_WEBHOOKS, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		AUTO_KEYRING keyring = keyring_of(SIGNATURE_STANDARD_WEBHOOKS, same[i]);
		assert_int_equal(signature_sign(keyring, 1, &input, i == 0 ? first : text), 0);
		assert_string_equal(i == 0 ? first : text, first);
	}
	AUTO_KEYRING hmac_raw = keyring_of(SIGNATURE_HMAC_SHA256, "whsec_c2VjcmV0IQ==");
	AUTO_KEYRING hmac_decoded = keyring_of(SIGNATURE_HMAC_SHA256, "secret!");
	assert_int_equal(signature_sign(hmac_raw, 1, &input, first), 0);
	assert_int_equal(signature_sign(hmac_decoded, 1, &input, text), 0);
	assert_string_not_equal(first, text);
}

static void measures_secrets_by_their_characters(void **state)
{
	AUTO_KEYRING keyring =
		keyring_of(SIGNATURE_STANDARD_WEBHOOKS, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
	assert_int_equal(signature_keyring_shortest(keyring), 32);
	AUTO_KEYRING padded = keyring_of(SIGNATURE_STANDARD_WEBHOOKS, "whsec_c2VjcmV0IQ==");
	assert_int_equal(signature_keyring_shortest(padded), 10);
}

static void names_long_secrets_only(void **state)
{
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_E2B, "0123456789abcdef0123456789abcdef\n"
							 "0123456789abcdef0123456789abcde\n");
	char name[9];
	signature_keyring_fingerprint(keyring, 1, name);
	assert_string_equal(name, "84f98a22");
	for (size_t position = 0; position <= 3; position++) {
		signature_keyring_fingerprint(keyring, position, name);
		assert_int_equal(strlen(name), position == 1 ? 8 : 0);
	}
	AUTO_KEYRING webhook =
		keyring_of(SIGNATURE_STANDARD_WEBHOOKS, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
	signature_keyring_fingerprint(webhook, 1, name);
	assert_string_equal(name, "63453a7b");
}

static void signs_as_the_senders_of_each_scheme_do(void **state)
{
	static const struct {
		enum signature_scheme scheme;
		const char *header;
	} cases[] = {
		{ SIGNATURE_E2B, E2B_BASE64 },
		{ SIGNATURE_HMAC_SHA256, "sha256=" HMAC_HEX },
		{ SIGNATURE_STANDARD_WEBHOOKS, "v1," WEBHOOK_BASE64 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_KEYRING keyring = keyring_of(cases[i].scheme, SECRET);
		struct signature_input input = input_for(cases[i].scheme, NULL);
		char text[SIGNATURE_TEXT_MAX] = "x";
		assert_int_equal(signature_sign(keyring, 1, &input, text), 0);
		assert_string_equal(text, cases[i].header);
		assert_int_equal(signature_sign(keyring, 0, &input, text), -ENOENT);
		assert_string_equal(text, "");
		assert_int_equal(signature_sign(keyring, 2, &input, text), -ENOENT);
	}
	AUTO_KEYRING keyring = keyring_of(SIGNATURE_STANDARD_WEBHOOKS, SECRET);
	struct signature_input input = input_for(SIGNATURE_STANDARD_WEBHOOKS, NULL);
	char text[SIGNATURE_TEXT_MAX];
	input.id = SPAN_ABSENT;
	assert_int_equal(signature_sign(keyring, 1, &input, text), -EINVAL);
}

static void knows_schemes_and_forms_by_name(void **state)
{
	static const struct {
		enum signature_scheme scheme;
		const char *name, *header;
	} cases[] = {
		{ SIGNATURE_E2B, "e2b", "e2b-signature" },
		{ SIGNATURE_HMAC_SHA256, "hmac-sha256", "x-signature-256" },
		{ SIGNATURE_STANDARD_WEBHOOKS, "standard-webhooks", "webhook-signature" },
	};
	enum signature_scheme scheme;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_true(signature_scheme_from_name(cases[i].name, &scheme));
		assert_int_equal(scheme, cases[i].scheme);
		assert_string_equal(signature_scheme_name(scheme), cases[i].name);
		assert_string_equal(signature_default_header(scheme), cases[i].header);
	}
	assert_false(signature_scheme_from_name("E2B", &scheme));
	assert_string_equal(signature_form_name(SIGNATURE_FORM_BASE64URL), "URL-safe base64");
}

static void hashes_compares_and_draws_bytes(void **state)
{
	uint8_t digest[32], drawn[2][32] = { 0 };
	static const uint8_t abc[4] = { 0xba, 0x78, 0x16, 0xbf };
	assert_int_equal(signature_sha256("abc", 3, digest), 0);
	assert_memory_equal(digest, abc, 4);
	assert_int_equal(digest[31], 0xad);
	assert_int_equal(signature_sha256(NULL, 0, digest), 0);
	assert_int_equal(digest[0], 0xe3);
	assert_true(signature_equal(span_of("token"), span_of("token")));
	assert_true(signature_equal(span_of(""), span_of("")));
	assert_false(signature_equal(span_of("token"), span_of("tokem")));
	assert_false(signature_equal(span_of("token"), span_of("toke")));
	assert_false(signature_equal(span_of("toke"), span_of("token")));
	assert_false(signature_equal(SPAN_ABSENT, SPAN_ABSENT));
	assert_false(signature_equal(SPAN_ABSENT, span_of("")));
	assert_false(signature_equal(span_of(""), SPAN_ABSENT));
	assert_int_equal(signature_random(drawn[0], 32), 0);
	assert_int_equal(signature_random(drawn[1], 32), 0);
	assert_memory_not_equal(drawn[0], drawn[1], 32);
}

/* A kernel that interrupts, gives little, or refuses. */
static int random_calls; /* 0: as it is */
ssize_t __real_getrandom(void *bytes, size_t len, unsigned int flags);
ssize_t __wrap_getrandom(void *bytes, size_t len, unsigned int flags);

ssize_t __wrap_getrandom(void *bytes, size_t len, unsigned int flags)
{
	switch (random_calls ? random_calls++ : 0) {
	case 0:
		return __real_getrandom(bytes, len, flags);
	case 1:
		errno = EINTR;
		return -1;
	case 2:
		memset(bytes, 'r', 5);
		return 5;
	default:
		errno = EPERM;
		return -1;
	}
}

static void draws_all_the_bytes_or_says_that_it_could_not(void **state)
{
	char bytes[8] = "";
	random_calls = 1;
	assert_int_equal(signature_random(bytes, 5), 0);
	assert_memory_equal(bytes, "rrrrr", 6);
	random_calls = 1;
	assert_int_equal(signature_random(bytes, 8), -EIO);
	random_calls = 0;
}

static void *openssl_malloc(size_t size, const char *file, int line)
{
	return scarce_fails() ? NULL : __real_malloc(size);
}

static void *openssl_realloc(void *old, size_t size, const char *file, int line)
{
	return scarce_fails() ? NULL : __real_realloc(old, size);
}

static void openssl_free(void *bytes, const char *file, int line)
{
	free(bytes);
}

static int load_sign_and_verify(enum signature_scheme scheme, struct signature_match *ret_match)
{
	AUTO_KEYRING keyring = NULL;
	char header[SIGNATURE_TEXT_MAX];
	const char secrets[] = "a-first-secret-that-is-long-enough-for-a-name\n" SECRET;
	int r = signature_keyring_new(scheme, secrets, strlen(secrets), &keyring);
	if (r < 0)
		return r;
	struct signature_input input = input_for(scheme, NULL);
	r = signature_sign(keyring, 2, &input, header);
	if (r < 0)
		return r;
	input.signature = span_of(header);
	return signature_verify(keyring, &input, ret_match);
}

/* Accepted or not judged, never refused: a sender that is told 401 would not come again. OpenSSL
 * does without some of what it asks for. */
static void out_of_memory_nothing_is_judged(void **state)
{
	for (int scheme = SIGNATURE_E2B; scheme <= SIGNATURE_STANDARD_WEBHOOKS; scheme++) {
		struct signature_match match = { 0 };
		assert_int_equal(load_sign_and_verify((enum signature_scheme)scheme, &match), 0);
		long n = 1;
		for (bool hit = true; hit; n++) {
			match = (struct signature_match) { 0 };
			scarce_begin(n);
			int r = load_sign_and_verify((enum signature_scheme)scheme, &match);
			hit = scarce_end();
			if (r > 0 || (r < 0 && !hit) || match.position != (r == 0 ? 2 : 0))
				fail_msg("scheme %d, allocation %ld: %d", scheme, n, r);
		}
		assert_true(n > 10);
	}
}

/* An OpenSSL that refuses: so does one whose FIPS provider failed its self-test. */
static long refusal; /* calls up to the one that is refused; 0: none is */

static bool refuses(void)
{
	return refusal > 0 && --refusal == 0;
}

#define REFUSING(name, parameters, arguments)                                                      \
	int __real_##name parameters;                                                              \
	int __wrap_##name parameters;                                                              \
	int __wrap_##name parameters                                                               \
	{                                                                                          \
		return refuses() ? 0 : __real_##name arguments;                                    \
	}
REFUSING(EVP_DigestInit_ex2, (EVP_MD_CTX * c, const EVP_MD *type, const OSSL_PARAM *params),
	 (c, type, params))
REFUSING(EVP_DigestUpdate, (EVP_MD_CTX * c, const void *bytes, size_t len), (c, bytes, len))
REFUSING(EVP_DigestFinal_ex, (EVP_MD_CTX * c, unsigned char *ret, unsigned int *ret_len),
	 (c, ret, ret_len))
REFUSING(EVP_MAC_init,
	 (EVP_MAC_CTX * c, const unsigned char *key, size_t len, const OSSL_PARAM *params),
	 (c, key, len, params))
REFUSING(EVP_MAC_update, (EVP_MAC_CTX * c, const unsigned char *bytes, size_t len), (c, bytes, len))
REFUSING(EVP_MAC_final, (EVP_MAC_CTX * c, unsigned char *ret, size_t *ret_len, size_t max),
	 (c, ret, ret_len, max))

static void without_openssl_nothing_is_judged(void **state)
{
	for (int scheme = SIGNATURE_E2B; scheme <= SIGNATURE_STANDARD_WEBHOOKS; scheme++) {
		long n = 1;
		for (bool hit = true; hit; n++) {
			struct signature_match match = { 0 };
			refusal = n;
			int r = load_sign_and_verify((enum signature_scheme)scheme, &match);
			hit = refusal == 0;
			refusal = 0;
			assert_int_equal(r, hit ? -EIO : 0);
			assert_int_equal(match.position, hit ? 0 : 2);
		}
		assert_true(n > 10);
	}
}

static void *verify_often(void *arg)
{
	const struct signature_keyring *keyring = arg;
	enum signature_scheme scheme = signature_keyring_scheme(keyring);
	struct signature_input input =
		input_for(scheme, scheme == SIGNATURE_E2B ? E2B_BASE64 : HMAC_HEX);
	struct signature_match match;
	for (int i = 0; i < 500; i++)
		if (signature_verify(keyring, &input, &match) != 0 || match.position != 2)
			return arg;
	return NULL;
}

static void threads_may_share_a_keyring(void **state)
{
	AUTO_KEYRING e2b = keyring_of(SIGNATURE_E2B, "other\n" SECRET);
	AUTO_KEYRING hmac = keyring_of(SIGNATURE_HMAC_SHA256, "other\n" SECRET);
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, verify_often, i % 2 ? e2b : hmac), 0);
	for (int i = 0; i < 4; i++) {
		void *failed = NULL;
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_the_forms_of_e2b_and_nothing_else),
		cmocka_unit_test(accepts_the_forms_of_hmac_and_nothing_else),
		cmocka_unit_test(takes_hexadecimal_digits_and_not_their_neighbours),
		cmocka_unit_test(accepts_any_good_entry_of_a_standard_webhooks_header),
		cmocka_unit_test(agrees_with_the_published_vector_of_standard_webhooks),
		cmocka_unit_test(refuses_a_webhook_id_that_is_not_plain),
		cmocka_unit_test(refuses_a_webhook_timestamp_that_is_not_a_number),
		cmocka_unit_test(tolerates_five_minutes_either_way),
		cmocka_unit_test(a_header_over_its_limit_is_malformed),
		cmocka_unit_test(rejects_every_flipped_bit_of_a_body_and_its_signature),
		cmocka_unit_test(rejects_a_body_that_was_cut_or_continued),
		cmocka_unit_test(a_secret_may_not_slide_into_the_body),
		cmocka_unit_test(says_which_of_several_secrets_matched),
		cmocka_unit_test(reads_secrets_a_line_each),
		cmocka_unit_test(reads_a_secret_without_reading_past_the_text),
		cmocka_unit_test(refuses_secrets_that_cannot_be_meant),
		cmocka_unit_test(refuses_a_secret_over_its_limit),
		cmocka_unit_test(a_keyring_without_secrets_matches_nothing),
		cmocka_unit_test(decodes_whsec_under_standard_webhooks_only),
		cmocka_unit_test(measures_secrets_by_their_characters),
		cmocka_unit_test(names_long_secrets_only),
		cmocka_unit_test(signs_as_the_senders_of_each_scheme_do),
		cmocka_unit_test(knows_schemes_and_forms_by_name),
		cmocka_unit_test(hashes_compares_and_draws_bytes),
		cmocka_unit_test(draws_all_the_bytes_or_says_that_it_could_not),
		cmocka_unit_test(out_of_memory_nothing_is_judged),
		cmocka_unit_test(without_openssl_nothing_is_judged),
		cmocka_unit_test(threads_may_share_a_keyring),
	};
	if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
