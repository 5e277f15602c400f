#include "peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

/* X-Forwarded-For is written by everybody on the way and can be forged by the first: only what our
 * own proxies appended counts, so it is read from the right. It names the sender in rejections and
 * logs; nothing is ever allowed or refused by it.
 */

static const uint8_t v4_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static bool is_v4(const struct peer *peer)
{
	return memcmp(peer->address, v4_prefix, sizeof(v4_prefix)) == 0;
}

static struct peer from_v4(const struct in_addr *address)
{
	struct peer peer = { 0 };

	memcpy(peer.address, v4_prefix, sizeof(v4_prefix));
	memcpy(peer.address + 12, address, 4);
	return peer;
}

struct peer peer_from_sockaddr(const struct sockaddr *address, socklen_t len)
{
	struct peer peer = { 0 };

	if (address->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		peer = from_v4(&((const struct sockaddr_in *)(const void *)address)->sin_addr);
	} else if (address->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
		memcpy(peer.address,
		       &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
	} else {
		peer.is_unix = true;
	}
	return peer;
}

char *peer_format(const struct peer *peer, char buf[static PEER_TEXT_MAX])
{
	if (peer->is_unix)
		(void)snprintf(buf, PEER_TEXT_MAX, "unix");
	else if (is_v4(peer))
		(void)inet_ntop(AF_INET, peer->address + 12, buf, PEER_TEXT_MAX);
	else
		(void)inet_ntop(AF_INET6, peer->address, buf, PEER_TEXT_MAX);
	return buf;
}

static struct span trim(struct span s)
{
	while (s.len && (s.s[0] == ' ' || s.s[0] == '\t')) {
		s.s++;
		s.len--;
	}
	while (s.len && (s.s[s.len - 1] == ' ' || s.s[s.len - 1] == '\t'))
		s.len--;
	return s;
}

static bool is_port(const char *s, size_t len)
{
	return len > 1 && len <= 6 && s[0] == ':' && strspn(s + 1, "0123456789") >= len - 1;
}

/* Takes brackets and a port off; false if what is around the address is no such thing. */
static bool bare_address(struct span text, char buf[static PEER_TEXT_MAX])
{
	const char *end = text.s + text.len, *colon;

	if (text.len && text.s[0] == '[') {
		const char *close = memchr(text.s, ']', text.len);

		if (!close || (close + 1 < end && !is_port(close + 1, (size_t)(end - close - 1))))
			return false;
		text = (struct span) { text.s + 1, (size_t)(close - text.s - 1) };
	} else if ((colon = memchr(text.s, ':', text.len)) &&
		   !memchr(colon + 1, ':', (size_t)(end - colon - 1))) {
		if (!is_port(colon, (size_t)(end - colon)))
			return false;
		text.len = (size_t)(colon - text.s);
	}
	if (text.len == 0 || text.len >= PEER_TEXT_MAX || memchr(text.s, 0, text.len))
		return false;
	memcpy(buf, text.s, text.len);
	buf[text.len] = 0;
	return true;
}

bool peer_parse(struct span text, struct peer *ret)
{
	struct peer peer = { 0 };
	struct in_addr v4;
	char buf[PEER_TEXT_MAX];

	text = trim(text);
	if (!text.s || text.len == 0 || !bare_address(text, buf))
		return false;
	if (inet_pton(AF_INET, buf, &v4) == 1)
		peer = from_v4(&v4);
	else if (inet_pton(AF_INET6, buf, peer.address) != 1)
		return false;
	*ret = peer;
	return true;
}

bool peer_is_loopback(const struct peer *peer)
{
	static const uint8_t v6_loopback[16] = { [15] = 1 };

	if (peer->is_unix)
		return false;
	return (is_v4(peer) && peer->address[12] == 127) ||
	       memcmp(peer->address, v6_loopback, 16) == 0;
}

static bool is_in(const struct peer *peer, const struct config_cidr *net)
{
	size_t whole = net->prefix / 8, bits = net->prefix % 8;
	uint8_t mask = (uint8_t)(0xff00u >> bits);

	if (memcmp(peer->address, net->address, whole) != 0)
		return false;
	return bits == 0 || ((peer->address[whole] ^ net->address[whole]) & mask) == 0;
}

bool peer_is_trusted(const struct peer *peer, const struct config_server *config)
{
	if (peer->is_unix)
		return config->trust_unix;
	for (size_t i = 0; i < config->n_trusted_proxies; i++) {
		if (is_in(peer, &config->trusted_proxies[i]))
			return true;
	}
	return false;
}

/* Cuts the right-most item off a comma-separated list. */
static struct span take_last(struct span *list)
{
	const char *comma = memrchr(list->s, ',', list->len);
	struct span item = *list;

	if (comma) {
		item = (struct span) { comma + 1, (size_t)(list->s + list->len - comma - 1) };
		list->len = (size_t)(comma - list->s);
	} else {
		list->len = 0;
	}
	return item;
}

struct peer peer_sender(const struct peer *peer, const struct config_server *config,
			const struct span *values, size_t n)
{
	struct peer sender = *peer;

	for (size_t i = n; i > 0; i--) {
		struct span list = values[i - 1];

		while (list.s && list.len > 0) {
			struct peer next;

			if (!peer_is_trusted(&sender, config) ||
			    !peer_parse(take_last(&list), &next))
				return sender;
			sender = next;
		}
	}
	return sender;
}

void peer_key(const struct peer *peer, uint8_t key[static 16])
{
	memcpy(key, peer->address, 16);
	if (!is_v4(peer))
		memset(key + 8, 0, 8);
}
