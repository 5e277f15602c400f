/* Secrets in use: counted by whoever verifies, written once a second. */
#include "writer_internal.h"

#include <string.h>

void writer_count_secret(struct writer *w, const char *source, unsigned int position,
			 const char *fingerprint, int64_t now_unix_ms)
{
	(void)pthread_mutex_lock(&w->lock);
	size_t i = 0;
	while (i < w->n_secrets && (w->secrets[i].use.position != position ||
				    strcmp(w->secrets[i].source, source) != 0 ||
				    strcmp(w->secrets[i].use.fingerprint, fingerprint) != 0))
		i++;
	if (i == w->n_secrets && i < WRITER_SECRETS_MAX) {
		struct writer_secret *secret = &w->secrets[w->n_secrets++];
		memset(secret, 0, sizeof(*secret));
		(void)snprintf(secret->source, sizeof(secret->source), "%s", source);
		secret->use.source = secret->source;
		secret->use.position = position;
		(void)snprintf(secret->use.fingerprint, sizeof(secret->use.fingerprint), "%s",
			       fingerprint);
	}
	if (i < WRITER_SECRETS_MAX) {
		w->secrets[i].use.n++;
		w->secrets[i].use.last_unix_ms = now_unix_ms;
	}
	(void)pthread_mutex_unlock(&w->lock);
}

static int put_secret(struct writer *w, const struct storage_secret_use *use)
{
	int r = storage_begin(w->s, false);
	if (r < 0)
		return r;
	r = storage_count_secret(w->s, use);
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	return r;
}

void writer_secret_flush(struct writer *w)
{
	for (size_t i = 0;; i++) {
		(void)pthread_mutex_lock(&w->lock);
		bool more = i < w->n_secrets;
		struct writer_secret secret = more ? w->secrets[i] : (struct writer_secret) { 0 };
		(void)pthread_mutex_unlock(&w->lock);
		if (!more)
			return;
		secret.use.source = secret.source;
		if (secret.use.n == 0 || put_secret(w, &secret.use) < 0)
			continue;
		(void)pthread_mutex_lock(&w->lock);
		w->secrets[i].use.n -= secret.use.n;
		(void)pthread_mutex_unlock(&w->lock);
	}
}
