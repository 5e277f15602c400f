/* One easy handle in one multi handle a call, driven here rather than by curl_easy_perform, which
 * looks at its progress callback but once a second: a shutdown must not wait for that.
 *
 * Invariant: no text of libcurl's reaches a message except what it says about a certificate; its
 * other texts may quote the URL.
 */
#include "http_client.h"

#include "clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include <curl/curl.h>

#define STOP_LOOK_MS 50
#define HEADERS_MAX 65536 /* bytes of header lines, interim answers included */

static pthread_once_t start_once = PTHREAD_ONCE_INIT;
static bool is_started;

static void start(void)
{
	is_started = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static void free_url(CURLU **u)
{
	curl_url_cleanup(*u);
}

static void free_text(char **text)
{
	curl_free(*text);
}

/* ---- URL ---- */

static bool is_visible(const char *s)
{
	size_t len = strlen(s);

	for (size_t i = 0; i < len; i++)
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	return len > 0 && len <= HTTP_CLIENT_URL_MAX;
}

int http_client_endpoint(const char *url, char buf[static HTTP_CLIENT_ENDPOINT_MAX])
{
	CLEANUP(free_url) CURLU *u = curl_url();
	CLEANUP(free_text) char *scheme = NULL, *host = NULL, *port = NULL;
	const char *authority = strstr(url, "://");

	buf[0] = '\0';
	/* libcurl would guess a scheme, and takes the first part of http:///path for a host. */
	if (!u || !is_visible(url) || !authority || authority[3] == '/' ||
	    curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK || host[0] == '\0')
		return HTTP_CLIENT_BAD_URL;
	if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
		return HTTP_CLIENT_BAD_URL;
	bool has_port = curl_url_get(u, CURLUPART_PORT, &port, 0) == CURLUE_OK;
	int n = snprintf(buf, HTTP_CLIENT_ENDPOINT_MAX, "%s://%s%s%s", scheme, host,
			 has_port ? ":" : "", has_port ? port : "");
	if (n < 0 || n >= HTTP_CLIENT_ENDPOINT_MAX) {
		buf[0] = '\0';
		return HTTP_CLIENT_BAD_URL;
	}
	return 0;
}

/* ---- one call ---- */

struct call {
	const struct http_client_request *request;
	struct http_client_answer *answer;
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers;
	size_t header_bytes;
	char tls_error[CURL_ERROR_SIZE];
};

static void finish_call(struct call *c)
{
	if (c->multi && c->easy)
		(void)curl_multi_remove_handle(c->multi, c->easy);
	curl_easy_cleanup(c->easy);
	(void)curl_multi_cleanup(c->multi);
	curl_slist_free_all(c->headers);
}

/* Returning less than was given ends the transfer. */
static size_t take_body(char *bytes, size_t size, size_t n, void *context)
{
	struct call *c = context;
	struct buffer *body = &c->answer->body;
	size_t len = size * n, take = base_min_size(len, body->max - body->len);

	return buffer_append(body, bytes, take) == 0 ? take : 0;
}

static size_t take_header(char *bytes, size_t size, size_t n, void *context)
{
	struct call *c = context;

	(void)bytes;
	c->header_bytes += size * n;
	return c->header_bytes <= HEADERS_MAX ? size * n : 0;
}

static int add_header(struct call *c, const char *name, const char *value)
{
	CLEANUP_FREE char *line = NULL;

	for (const char *p = value; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return -EINVAL;
	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return -ENOMEM;
	}
	struct curl_slist *more = curl_slist_append(c->headers, line);
	if (!more)
		return -ENOMEM;
	c->headers = more;
	return 0;
}

static int add_headers(struct call *c)
{
	const struct http_client_request *request = c->request;
	int r = 0;

	for (size_t i = 0; r == 0 && i < request->n_headers; i++)
		r = add_header(c, request->headers[i].name, request->headers[i].value);
	if (r < 0)
		return r;
	/* Bodies are small: no round trip to ask whether they may come. */
	struct curl_slist *more = curl_slist_append(c->headers, "Expect:");
	if (!more)
		return -ENOMEM;
	c->headers = more;
	return 0;
}

#define SET(c, option, value)                                                                      \
	do {                                                                                       \
		if (curl_easy_setopt((c)->easy, option, value) != CURLE_OK)                        \
			return -ENOMEM;                                                            \
	} while (0)

static int set_limits(struct call *c)
{
	int64_t timeout_ms = base_max_i64(c->request->timeout_ms, 1);
	int64_t connect_ms = base_min_i64(timeout_ms, base_max_i64(timeout_ms / 5 * 2, 1000));

	SET(c, CURLOPT_NOSIGNAL, 1L);
	SET(c, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	SET(c, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
	SET(c, CURLOPT_PROTOCOLS_STR, "http,https");
	SET(c, CURLOPT_FOLLOWLOCATION, 0L);
	SET(c, CURLOPT_PROXY, ""); /* not even from the environment */
	SET(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	SET(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(c, CURLOPT_SSL_VERIFYPEER, 1L);
	SET(c, CURLOPT_SSL_VERIFYHOST, 2L);
	/* Else the end of a call waits for a name server that does not answer. */
	SET(c, CURLOPT_QUICK_EXIT, 1L);
	return 0;
}

static int set_request(struct call *c)
{
	SET(c, CURLOPT_URL, c->request->url);
	SET(c, CURLOPT_USERAGENT, "e2b-hookd/" HOOKD_VERSION);
	SET(c, CURLOPT_HTTPHEADER, c->headers);
	SET(c, CURLOPT_POST, 1L);
	SET(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->request->body.len);
	SET(c, CURLOPT_POSTFIELDS, c->request->body.s ? c->request->body.s : "");
	SET(c, CURLOPT_WRITEFUNCTION, take_body);
	SET(c, CURLOPT_WRITEDATA, c);
	SET(c, CURLOPT_HEADERFUNCTION, take_header);
	SET(c, CURLOPT_HEADERDATA, c);
	SET(c, CURLOPT_ERRORBUFFER, c->tls_error);
	return 0;
}

static int prepare(struct call *c)
{
	(void)pthread_once(&start_once, start);
	if (!is_started)
		return -ENOMEM;
	c->easy = curl_easy_init();
	c->multi = curl_multi_init();
	if (!c->easy || !c->multi)
		return -ENOMEM;
	int r = add_headers(c);
	if (r == 0)
		r = set_limits(c);
	if (r == 0)
		r = set_request(c);
	if (r == 0 && curl_multi_add_handle(c->multi, c->easy) != CURLM_OK)
		r = -ENOMEM;
	return r;
}

static CURLcode result_of(struct call *c)
{
	int left;
	const CURLMsg *message = curl_multi_info_read(c->multi, &left);

	return message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_RECV_ERROR;
}

/* 0 and how it ended, or HTTP_CLIENT_STOPPED, or -EIO. */
static int transfer(struct call *c, CURLcode *ret)
{
	const atomic_bool *stop = c->request->stop;
	int running = 1;

	for (;;) {
		if (stop && atomic_load(stop))
			return HTTP_CLIENT_STOPPED;
		if (curl_multi_perform(c->multi, &running) != CURLM_OK)
			return -EIO;
		if (running == 0) {
			*ret = result_of(c);
			return 0;
		}
		if (curl_multi_poll(c->multi, NULL, 0, STOP_LOOK_MS, NULL) != CURLM_OK)
			return -EIO;
	}
}

/* OpenSSL writes to sockets without MSG_NOSIGNAL, and this may run where SIGPIPE is not ignored. */
static int transfer_without_sigpipe(struct call *c, CURLcode *ret)
{
	const struct timespec now = { 0 };
	sigset_t pipe_set, pending, old;

	(void)sigemptyset(&pipe_set);
	(void)sigaddset(&pipe_set, SIGPIPE);
	(void)sigpending(&pending);
	bool was_pending = sigismember(&pending, SIGPIPE) == 1;
	(void)pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
	int r = transfer(c, ret);
	if (!was_pending)
		(void)sigtimedwait(&pipe_set, NULL, &now);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* ---- what went wrong ---- */

static const struct {
	CURLcode code;
	enum http_client_outcome outcome;
	const char *text; /* NULL: from the operating system */
} failures[] = {
	{ CURLE_OPERATION_TIMEDOUT, HTTP_CLIENT_TIMEOUT, "no answer in time" },
	{ CURLE_COULDNT_RESOLVE_HOST, HTTP_CLIENT_UNREACHABLE, "no address for this name" },
	{ CURLE_COULDNT_CONNECT, HTTP_CLIENT_UNREACHABLE, NULL },
	{ CURLE_GOT_NOTHING, HTTP_CLIENT_UNREACHABLE,
	  "the connection was closed without an answer" },
	{ CURLE_WEIRD_SERVER_REPLY, HTTP_CLIENT_UNREACHABLE, "what answered is no HTTP server" },
	{ CURLE_UNSUPPORTED_PROTOCOL, HTTP_CLIENT_UNREACHABLE, "what answered is no HTTP server" },
	{ CURLE_WRITE_ERROR, HTTP_CLIENT_UNREACHABLE, "the headers of the answer are too large" },
	{ CURLE_SEND_ERROR, HTTP_CLIENT_UNREACHABLE, "the connection broke" },
	{ CURLE_RECV_ERROR, HTTP_CLIENT_UNREACHABLE, "the connection broke" },
	{ CURLE_PEER_FAILED_VERIFICATION, HTTP_CLIENT_UNTRUSTED, "its certificate is not trusted" },
	{ CURLE_SSL_CACERT_BADFILE, HTTP_CLIENT_UNTRUSTED,
	  "no certificates to verify it with: install ca-certificates" },
	{ CURLE_SSL_CONNECT_ERROR, HTTP_CLIENT_UNTRUSTED, "no TLS connection" },
};

static int explain(const struct call *c, CURLcode code, const char *endpoint,
		   char error[static HTTP_CLIENT_ERROR_MAX])
{
	enum http_client_outcome outcome = HTTP_CLIENT_UNREACHABLE;
	const char *text = "no answer";
	long os_errno = 0;

	if (code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	(void)curl_easy_getinfo(c->easy, CURLINFO_OS_ERRNO, &os_errno);
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		if (failures[i].code != code)
			continue;
		outcome = failures[i].outcome;
		text = failures[i].text ? failures[i].text : "no connection";
		if (!failures[i].text && os_errno != 0)
			text = strerrordesc_np((int)os_errno);
	}
	bool tells_more = outcome == HTTP_CLIENT_UNTRUSTED && c->tls_error[0];
	(void)snprintf(error, HTTP_CLIENT_ERROR_MAX, "%s: %s%s%s", endpoint, text,
		       tells_more ? ": " : "", tells_more ? c->tls_error : "");
	return (int)outcome;
}

static bool read_answer(struct call *c)
{
	curl_off_t retry_after_s = 0;
	long status = 0;

	(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
	if (status < 200 || status > 999)
		return false;
	c->answer->status = (unsigned int)status;
	c->answer->retry_after_s = base_max_i64(retry_after_s, 0);
	return true;
}

int http_client_post(const struct http_client_request *request, struct http_client_answer *ret,
		     char error[static HTTP_CLIENT_ERROR_MAX])
{
	CLEANUP(finish_call) struct call c = { .request = request, .answer = ret };
	char endpoint[HTTP_CLIENT_ENDPOINT_MAX];
	CURLcode code = CURLE_OK;

	*ret = (struct http_client_answer) { .body = BUFFER_INIT(HTTP_CLIENT_ANSWER_MAX) };
	error[0] = '\0';
	int r = http_client_endpoint(request->url, endpoint);
	if (r != 0) {
		(void)snprintf(error, HTTP_CLIENT_ERROR_MAX,
			       "the URL is not one of http:// or https:// with a host");
		return r;
	}
	r = prepare(&c);
	if (r == 0)
		r = transfer_without_sigpipe(&c, &code);
	if (r >= 0 && read_answer(&c))
		return 0;
	if (r == HTTP_CLIENT_STOPPED)
		(void)snprintf(error, HTTP_CLIENT_ERROR_MAX, "%s: stopped while it was waited for",
			       endpoint);
	else if (r == 0)
		r = explain(&c, code, endpoint, error);
	if (r < 0)
		(void)snprintf(error, HTTP_CLIENT_ERROR_MAX, "%s: %s", endpoint,
			       strerrordesc_np(-r));
	return r;
}
