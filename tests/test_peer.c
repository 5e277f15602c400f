/* Addresses, trusted proxies and how far X-Forwarded-For is believed. */
#include "peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct peer peer(const char *text)
{
	struct peer p = { 0 };
	assert_true(peer_parse((struct span) { text, strlen(text) }, &p));
	return p;
}

static struct config_cidr net(const char *text, uint8_t prefix)
{
	struct peer p = peer(text);
	struct config_cidr n = { .prefix = prefix };
	memcpy(n.address, p.address, 16);
	return n;
}

static void reads_the_forms_that_proxies_write(void **state)
{
	static const char *const rows[][2] = {
		{ "192.0.2.1", "192.0.2.1" },		{ " 192.0.2.1\t", "192.0.2.1" },
		{ "192.0.2.1:8080", "192.0.2.1" },	{ "::1", "::1" },
		{ "2001:DB8::7", "2001:db8::7" },	{ "[2001:db8::7]", "2001:db8::7" },
		{ "[2001:db8::7]:443", "2001:db8::7" }, { "::ffff:192.0.2.9", "192.0.2.9" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct peer p = peer(rows[i][0]);
		char text[PEER_TEXT_MAX];
		assert_string_equal(peer_format(&p, text), rows[i][1]);
	}
}

static void refuses_what_is_no_address(void **state)
{
	static const char *const texts[] = {
		"",
		" ",
		"unknown",
		"_hidden",
		"192.0.2",
		"192.0.2.1:",
		"192.0.2.1:x",
		"192.0.2.1:123456",
		"[::1",
		"[::1]x",
		"[::1]:",
		"1.2.3.4.5",
		"localhost",
		"12345678901234567890123456789012345678901234567890",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct peer p;
		if (peer_parse((struct span) { texts[i], strlen(texts[i]) }, &p))
			fail_msg("accepted: %s", texts[i]);
	}
}

static void matches_networks_bit_by_bit(void **state)
{
	struct config_server config = { .n_trusted_proxies = 1 };
	struct peer inside = peer("10.1.127.255"), outside = peer("10.1.128.0");
	config.trusted_proxies[0] = net("10.1.0.0", 96 + 17);
	assert_true(peer_is_trusted(&inside, &config));
	assert_false(peer_is_trusted(&outside, &config));
	config.trusted_proxies[0] = net("::", 0);
	assert_true(peer_is_trusted(&outside, &config));
	config.trusted_proxies[0] = net("10.1.128.0", 128);
	assert_true(peer_is_trusted(&outside, &config));
	assert_false(peer_is_trusted(&inside, &config));
}

static void trusts_unix_peers_only_when_told(void **state)
{
	struct config_server config = { .n_trusted_proxies = 1 };
	struct peer local = { .is_unix = true };
	config.trusted_proxies[0] = net("::", 0);
	assert_false(peer_is_trusted(&local, &config));
	config.trust_unix = true;
	assert_true(peer_is_trusted(&local, &config));
}

static void expect_sender(const char *from, const char *first, const char *second,
			  const char *sender)
{
	struct config_server config = { .n_trusted_proxies = 1 };
	const struct span values[] = {
		{ first, strlen(first) },
		{ second, second ? strlen(second) : 0 },
	};
	struct peer p = peer(from), s;
	char text[PEER_TEXT_MAX];
	config.trusted_proxies[0] = net("10.0.0.0", 96 + 8);
	s = peer_sender(&p, &config, values, second ? 2 : 1);
	assert_string_equal(peer_format(&s, text), sender);
}

static void believes_the_right_most_untrusted_hop(void **state)
{
	expect_sender("192.0.2.1", "198.51.100.1", NULL, "192.0.2.1");
	expect_sender("10.0.0.1", "198.51.100.1", NULL, "198.51.100.1");
	expect_sender("10.0.0.1", "6.6.6.6, 198.51.100.1", NULL, "198.51.100.1");
	expect_sender("10.0.0.1", "6.6.6.6, 198.51.100.1 ,10.0.0.2", NULL, "198.51.100.1");
	expect_sender("10.0.0.1", "6.6.6.6", "198.51.100.1", "198.51.100.1");
	expect_sender("10.0.0.1", "198.51.100.1", "10.0.0.3, 10.0.0.2", "198.51.100.1");
	expect_sender("10.0.0.1", "10.0.0.9", NULL, "10.0.0.9");
}

static void stops_at_what_it_cannot_read(void **state)
{
	expect_sender("10.0.0.1", "198.51.100.1, nonsense", NULL, "10.0.0.1");
	expect_sender("10.0.0.1", "198.51.100.1,", NULL, "10.0.0.1");
	expect_sender("10.0.0.1", "nonsense, 10.0.0.2", NULL, "10.0.0.2");
	expect_sender("10.0.0.1", "", NULL, "10.0.0.1");
}

static void knows_loopback(void **state)
{
	static const char *const yes[] = { "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1" };
	struct peer other = peer("128.0.0.1"), local = { .is_unix = true };
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		struct peer p = peer(yes[i]);
		assert_true(peer_is_loopback(&p));
	}
	assert_false(peer_is_loopback(&other));
	assert_false(peer_is_loopback(&local));
}

static void counts_a_64_of_ipv6_as_one(void **state)
{
	struct peer a = peer("2001:db8:1:2::1"), b = peer("2001:db8:1:2:ffff::"),
		    c = peer("2001:db8:1:3::1"), d = peer("192.0.2.1"), e = peer("192.0.2.2");
	uint8_t keys[5][16];
	peer_key(&a, keys[0]);
	peer_key(&b, keys[1]);
	peer_key(&c, keys[2]);
	peer_key(&d, keys[3]);
	peer_key(&e, keys[4]);
	assert_memory_equal(keys[0], keys[1], 16);
	assert_memory_not_equal(keys[0], keys[2], 16);
	assert_memory_not_equal(keys[3], keys[4], 16);
}

static void takes_socket_addresses(void **state)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	struct sockaddr other = { .sa_family = AF_UNIX };
	char text[PEER_TEXT_MAX];
	v4.sin_addr.s_addr = htonl(0xc0000201);
	struct peer p = peer_from_sockaddr((struct sockaddr *)&v4, sizeof(v4));
	assert_string_equal(peer_format(&p, text), "192.0.2.1");
	p = peer_from_sockaddr((struct sockaddr *)&v6, sizeof(v6));
	assert_string_equal(peer_format(&p, text), "::1");
	p = peer_from_sockaddr(&other, sizeof(sa_family_t));
	assert_string_equal(peer_format(&p, text), "unix");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_the_forms_that_proxies_write),
		cmocka_unit_test(refuses_what_is_no_address),
		cmocka_unit_test(matches_networks_bit_by_bit),
		cmocka_unit_test(trusts_unix_peers_only_when_told),
		cmocka_unit_test(believes_the_right_most_untrusted_hop),
		cmocka_unit_test(stops_at_what_it_cannot_read),
		cmocka_unit_test(knows_loopback),
		cmocka_unit_test(counts_a_64_of_ipv6_as_one),
		cmocka_unit_test(takes_socket_addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
