/* The values of headers and secret files. Input: a byte that chooses scheme and mode, then either a
 * secret file, or the lines signature, id and timestamp and behind them the body. Nothing but the
 * signature of that body may verify, what we sign must verify, and a secret file that is accepted
 * must give secrets that sign.
 */
#include "fuzz_input.h"

#include "signature.h"

#include <string.h>

#define NOW INT64_C(1700000000)
#define MODE_SECRETS 4

/* The next line in memory of its own size, so that a sanitizer sees over-reads. */
static struct span take_line(struct span *rest)
{
	const char *end = rest->len > 0 ? memchr(rest->s, '\n', rest->len) : NULL;
	size_t len = end ? (size_t)(end - rest->s) : rest->len;
	char *copy = malloc(len ? len : 1);
	check(copy != NULL);
	if (len > 0)
		memcpy(copy, rest->s, len);
	rest->s += end ? len + 1 : len;
	rest->len -= end ? len + 1 : len;
	return (struct span) { copy, len };
}

static const struct signature_keyring *keyring_of(enum signature_scheme scheme)
{
	static struct signature_keyring *keyrings[3];
	static const char text[] = "another-secret\ntest-signature-secret\n";
	if (!keyrings[scheme])
		check(signature_keyring_new(scheme, text, sizeof(text) - 1, &keyrings[scheme]) ==
		      0);
	return keyrings[scheme];
}

/* Whatever was sent, a secret's own signature verifies and names a secret that makes it. */
static void check_own_signature(const struct signature_keyring *keyring,
				struct signature_input input, unsigned int position)
{
	char text[SIGNATURE_TEXT_MAX];
	struct signature_match match;
	int r = signature_sign(keyring, position, &input, text);
	if (r != 0) {
		check(signature_keyring_scheme(keyring) == SIGNATURE_STANDARD_WEBHOOKS);
		check(text[0] == '\0');
		return;
	}
	check(strlen(text) < SIGNATURE_TEXT_MAX);
	input.signature = (struct span) { text, strlen(text) };
	r = signature_verify(keyring, &input, &match);
	check(r == 0 || (r == SIGNATURE_EXPIRED &&
			 signature_keyring_scheme(keyring) == SIGNATURE_STANDARD_WEBHOOKS));
	if (r == 0)
		check(match.position >= 1 && match.position <= position);
	text[strlen(text) / 2] ^= 1;
	check(signature_verify(keyring, &input, &match) > 0);
}

static void check_delivery(enum signature_scheme scheme, struct span rest)
{
	const struct signature_keyring *keyring = keyring_of(scheme);
	struct signature_input input = { .now_unix_s = NOW };
	struct signature_match match = { 0 };
	input.signature = take_line(&rest);
	input.id = take_line(&rest);
	input.timestamp = take_line(&rest);
	input.body = rest;
	int r = signature_verify(keyring, &input, &match);
	check(r >= 0 && r <= SIGNATURE_EXPIRED);
	if (r == 0) {
		check(match.position == 1 || match.position == 2);
		check(signature_form_name(match.form) != NULL);
		input.now_unix_s += 2 * SIGNATURE_TOLERANCE_S + 1;
		check(signature_verify(keyring, &input, &match) ==
		      (scheme == SIGNATURE_STANDARD_WEBHOOKS ? SIGNATURE_EXPIRED : 0));
		input.now_unix_s = NOW;
	}
	check_own_signature(keyring, input, 1);
	check_own_signature(keyring, input, 2);
	free((char *)input.signature.s);
	free((char *)input.id.s);
	free((char *)input.timestamp.s);
}

static void check_secrets(enum signature_scheme scheme, struct span text)
{
	struct signature_keyring *keyring = NULL;
	int r = signature_keyring_new(scheme, text.s, text.len, &keyring);
	check((r == 0) == (keyring != NULL));
	if (r != 0)
		return;
	size_t n = signature_keyring_count(keyring);
	check(n <= SIGNATURE_SECRETS_MAX && (n == 0) == (signature_keyring_shortest(keyring) == 0));
	const struct signature_input input = {
		.id = SPAN_LITERAL("msg"),
		.timestamp = SPAN_LITERAL("1700000000"),
		.body = SPAN_LITERAL("{}"),
		.now_unix_s = NOW,
	};
	for (unsigned int position = 1; position <= n; position++) {
		char name[9];
		signature_keyring_fingerprint(keyring, position, name);
		check(strlen(name) == 0 || strlen(name) == 8);
		check_own_signature(keyring, input, position);
	}
	signature_keyring_free(keyring);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	enum signature_scheme scheme = (enum signature_scheme)((data[0] & 3) % 3);
	struct span rest = { (const char *)data + 1, size - 1 };
	if (data[0] & MODE_SECRETS)
		check_secrets(scheme, rest);
	else
		check_delivery(scheme, rest);
	return 0;
}
