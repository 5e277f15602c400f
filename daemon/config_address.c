/* Addresses: where to listen, and whose word about client addresses is taken.
 *
 * Numbers only: no name is ever resolved, except that "localhost" is kept as a word. Nothing is
 * opened here.
 */
#include "config_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/un.h>

#define LISTEN_FORMS "write 127.0.0.1:8787, [::1]:8787, 0.0.0.0:8787, unix:/path/of.sock or systemd"

static int address_refuse(char *why, const char *text, const char *what)
{
	char quoted[CONFIG_QUOTE_MAX];
	(void)snprintf(why, CONFIG_WHY_MAX, "%s %s", config_report_quote(quoted, text), what);
	return -EINVAL;
}

/* 1 to 5 digits, at most 65535. */
static bool address_read_port(const char *text, uint16_t *ret)
{
	size_t len = strlen(text);
	if (len < 1 || len > 5 || strspn(text, "0123456789") != len)
		return false;
	unsigned long port = strtoul(text, NULL, 10);
	if (port > UINT16_MAX)
		return false;
	*ret = (uint16_t)port;
	return true;
}

static bool address_is_numeric(int family, const char *host)
{
	struct in6_addr address;
	return inet_pton(family, host, &address) == 1;
}

/* The host part in place of `text`, which is cut up: `[v6]:port` or `host:port`. */
static int address_read_tcp(struct config_listen *listen, char *text, const char *whole, char *why)
{
	char *colon = strrchr(text, ':');
	if (!colon || !address_read_port(colon + 1, &listen->port))
		return address_refuse(why, whole, "has no port; " LISTEN_FORMS);
	*colon = '\0';
	char *host = text;
	size_t len = strlen(host);
	bool in_brackets = len >= 2 && host[0] == '[' && host[len - 1] == ']';
	if (in_brackets) {
		host[len - 1] = '\0';
		host++;
	}
	if (!in_brackets && strchr(host, ':'))
		return address_refuse(why, whole, "is IPv6 without brackets; write [::1]:8787");
	if (!address_is_numeric(in_brackets ? AF_INET6 : AF_INET, host) &&
	    (in_brackets || strcmp(host, "localhost") != 0))
		return address_refuse(why, whole,
				      "names a host that is no numeric address; " LISTEN_FORMS);
	listen->host = strdup(host);
	return listen->host ? 0 : -ENOMEM;
}

static int address_read_unix(struct config_listen *listen, const char *path, const char *whole,
			     char *why)
{
	struct sockaddr_un address;
	if (path[0] != '/' || path[strlen(path) - 1] == '/')
		return address_refuse(
			why, whole,
			"needs an absolute path, such as unix:/run/e2b-hookd/hook.sock");
	if (strlen(path) >= sizeof(address.sun_path))
		return address_refuse(why, whole, "is longer than a unix socket's path may be");
	listen->path = strdup(path);
	return listen->path ? 0 : -ENOMEM;
}

int config_address_parse_listen(struct config_listen *ret, const char *text,
				char why[static CONFIG_WHY_MAX])
{
	CLEANUP(config_address_finish) struct config_listen listen = { .text = strdup(text) };
	CLEANUP_FREE char *copy = strdup(text);
	int rc = 0;

	if (!listen.text || !copy)
		return -ENOMEM;
	if (strcmp(text, "systemd") == 0) {
		listen.kind = CONFIG_LISTEN_SYSTEMD;
	} else if (strncmp(text, "unix:", 5) == 0) {
		listen.kind = CONFIG_LISTEN_UNIX;
		rc = address_read_unix(&listen, text + 5, text, why);
	} else {
		listen.kind = CONFIG_LISTEN_TCP;
		rc = address_read_tcp(&listen, copy, text, why);
	}
	if (rc < 0)
		return rc;
	*ret = listen;
	listen = (struct config_listen) { 0 };
	return 0;
}

void config_address_finish(struct config_listen *listen)
{
	free(listen->text);
	free(listen->host);
	free(listen->path);
	*listen = (struct config_listen) { 0 };
}

bool config_address_same(const struct config_listen *a, const struct config_listen *b)
{
	if (!a->text || !b->text || a->kind != b->kind)
		return !a->text && !b->text;
	switch (a->kind) {
	case CONFIG_LISTEN_SYSTEMD:
		return true;
	case CONFIG_LISTEN_UNIX:
		return strcmp(a->path, b->path) == 0;
	case CONFIG_LISTEN_TCP:
		return a->port == b->port && strcmp(a->host, b->host) == 0;
	}
	return false;
}

bool config_address_clashes(const struct config_listen *a, const struct config_listen *b)
{
	bool kernel_chooses = a->kind == CONFIG_LISTEN_TCP && a->port == 0;
	return !kernel_chooses && config_address_same(a, b);
}

bool config_address_is_local(const struct config_listen *listen)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (listen->kind != CONFIG_LISTEN_TCP)
		return listen->kind == CONFIG_LISTEN_UNIX;
	if (strcmp(listen->host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, listen->host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, listen->host, &v6) != 1)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

/* Whether every bit behind the prefix is zero. */
static bool address_ends_at(const uint8_t address[static 16], unsigned int prefix)
{
	for (unsigned int bit = prefix; bit < 128; bit++)
		if (address[bit / 8] & (0x80U >> (bit % 8)))
			return false;
	return true;
}

static bool address_read_prefix(const char *text, unsigned int max, unsigned int *ret)
{
	uint16_t value;
	if (strlen(text) > 3 || !address_read_port(text, &value) || value > max)
		return false;
	*ret = value;
	return true;
}

int config_address_parse_network(struct config_cidr *ret, const char *text,
				 char why[static CONFIG_WHY_MAX])
{
	char host[INET6_ADDRSTRLEN];
	uint8_t address[16] = { [10] = 0xff, [11] = 0xff };
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	bool fits = len < sizeof(host);

	(void)snprintf(host, sizeof(host), "%.*s", fits ? (int)len : 0, text);
	bool is_v4 = inet_pton(AF_INET, host, address + 12) == 1;
	if (!is_v4 && inet_pton(AF_INET6, host, address) != 1)
		return address_refuse(why, text,
				      "is neither an address, a network such as 10.0.0.0/8, nor "
				      "the word unix; separate several by commas");
	unsigned int prefix = is_v4 ? 32 : 128;
	if (slash && !address_read_prefix(slash + 1, prefix, &prefix))
		return address_refuse(why, text, "has a bad prefix length");
	prefix += is_v4 ? 96 : 0;
	if (!address_ends_at(address, prefix))
		return address_refuse(why, text,
				      "has bits set behind its prefix; write the network's own "
				      "address, such as 10.0.0.0/8");
	ret->prefix = (uint8_t)prefix;
	for (size_t i = 0; i < sizeof(address); i++)
		ret->address[i] = address[i];
	return 0;
}
