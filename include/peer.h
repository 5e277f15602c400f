/* Who is at the other end: addresses of connections, trusted proxies and X-Forwarded-For.
 *
 * One form for all: 16 bytes, IPv4 as v4-mapped IPv6. Never a name, never DNS. Pure; any thread.
 */
#pragma once

#include "base.h"
#include "config.h"

#include <sys/socket.h>

#define PEER_TEXT_MAX 48

struct peer {
	bool is_unix; /* then the address is all zero */
	uint8_t address[16];
};

struct peer peer_from_sockaddr(const struct sockaddr *address, socklen_t len);
/* `192.0.2.1`, `2001:db8::1` or `unix`. Returns buf. */
char *peer_format(const struct peer *peer, char buf[static PEER_TEXT_MAX]);
/* Reads what proxies write: an address, in brackets, with or without a port. */
bool peer_parse(struct span text, struct peer *ret);
bool peer_is_loopback(const struct peer *peer);
/* A unix peer or an address among trusted_proxies? */
bool peer_is_trusted(const struct peer *peer, const struct config_server *config);

/* The sender as far as it can be believed: `peer` itself unless it is a trusted proxy; then the
 * right-most address in X-Forwarded-For that is not itself a trusted proxy. `values` are the values
 * of that header in the order received. What cannot be read ends the search at the last address
 * known. */
struct peer peer_sender(const struct peer *peer, const struct config_server *config,
			const struct span *values, size_t n);

/* The key that max_connections_per_ip counts by: the address, of IPv6 the /64 (one customer). */
void peer_key(const struct peer *peer, uint8_t key[static 16]);
