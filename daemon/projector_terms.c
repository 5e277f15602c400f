/* Terms: what the ledger asks of the configuration, by the keys that the store gave. */
#include "projector_internal.h"

#include "config.h"

#include <errno.h>
#include <string.h>

#define NAME_MAX_LEN 160

void projector_terms_forget(struct projector *p)
{
	memset(p->sources, 0, sizeof(p->sources));
	memset(p->templates, 0, sizeof(p->templates));
}

/* NULL: nothing to say. */
static const char *text_of(struct projector *p, enum storage_dim dim, int64_t key,
			   char buf[static NAME_MAX_LEN])
{
	int r = storage_text(p->s, dim, key, buf, NAME_MAX_LEN);
	if (r < 0 && r != -ENOENT)
		p->term_error = r;
	return r < 0 ? NULL : buf;
}

bool projector_terms_priced(void *ctx, int64_t source_key)
{
	struct projector *p = ctx;
	char buf[NAME_MAX_LEN];
	if (!source_key || !p->config)
		return true;
	struct projector_term *term = &p->sources[source_key & (TERMS_CACHED - 1)];
	if (term->key != source_key) {
		const char *name = text_of(p, STORAGE_SOURCE, source_key, buf);
		term->source = name ? config_source_by_name(p->config, name) : NULL;
		term->key = p->term_error ? 0 : source_key;
	}
	return !term->source || term->source->priced;
}

bool projector_terms_size(void *ctx, int64_t template_key, int64_t *ret_vcpu,
			  int64_t *ret_memory_mb)
{
	struct projector *p = ctx;
	char buf[NAME_MAX_LEN];
	if (!template_key || !p->config)
		return false;
	struct projector_term *term = &p->templates[template_key & (TERMS_CACHED - 1)];
	if (term->key != template_key) {
		const char *id = text_of(p, STORAGE_TEMPLATE, template_key, buf);
		struct span span = { id, id ? strlen(id) : 0 };
		term->template = id ? config_template_by_id(p->config, span) : NULL;
		term->key = p->term_error ? 0 : template_key;
	}
	const struct config_template *t = term->template;
	if (!t || t->vcpu < 0 || t->memory_mb < 0)
		return false;
	*ret_vcpu = t->vcpu;
	*ret_memory_mb = t->memory_mb;
	return true;
}
