/* What of a configuration decides how events fold. Of two that are alike in it, a reload from one
 * to the other leaves a rebuild that is under way worth finishing.
 */
#include "config.h"

#include <string.h>

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_templates(const struct config *a, const struct config *b)
{
	bool same = a->n_templates == b->n_templates;
	for (size_t i = 0; same && i < a->n_templates; i++) {
		const struct config_template *x = &a->templates[i], *y = &b->templates[i];
		same = same_text(x->id, y->id) && same_text(x->alias, y->alias) &&
		       x->vcpu == y->vcpu && x->memory_mb == y->memory_mb;
	}
	return same;
}

static bool same_priced(const struct config *a, const struct config *b)
{
	bool same = a->n_sources == b->n_sources;
	for (size_t i = 0; same && i < a->n_sources; i++)
		same = same_text(a->sources[i].name, b->sources[i].name) &&
		       a->sources[i].priced == b->sources[i].priced;
	return same;
}

static bool same_prices(const struct pricing *a, const struct pricing *b)
{
	bool same = a->n == b->n;
	for (size_t i = 0; same && i < a->n; i++)
		same = a->entries[i].from_unix_s == b->entries[i].from_unix_s &&
		       a->entries[i].rates.vcpu_second_femto ==
			       b->entries[i].rates.vcpu_second_femto &&
		       a->entries[i].rates.gib_second_femto == b->entries[i].rates.gib_second_femto;
	return same;
}

bool config_same_terms(const struct config *a, const struct config *b)
{
	return a->store.max_run_ms == b->store.max_run_ms &&
	       same_prices(&a->pricing, &b->pricing) && same_templates(a, b) && same_priced(a, b);
}
