/* What a run costs, in integers from end to end.
 *
 * With rates in 10^-15 USD, the exact cost in nano-USD is the fraction
 *
 *	ms x (1024 x vcpu x vcpu_rate + memory_mb x gib_rate) / (1000 x 1024 x 10^6)
 *
 * so there is one rounding, at the very end. The numerator is a 128-bit number and every step of it
 * is checked. What has no price or no size is not decided here: the caller knows that it is
 *unknown.
 */
#include "pricing.h"

#include <errno.h>
#include <string.h>

#define COST_DIVISOR (INT64_C(1000) * 1024 * 1000000)

void pricing_init(struct pricing *p, struct pricing_rates base)
{
	p->entries[0] = (struct pricing_entry) { INT64_MIN, base };
	p->n = 1;
}

/* The entry in force at that second: the last that does not begin later. */
static size_t find(const struct pricing *p, int64_t unix_s)
{
	assert(p->n > 0 && p->n <= PRICING_ENTRIES_MAX);
	size_t i = p->n - 1;
	while (i > 0 && p->entries[i].from_unix_s > unix_s)
		i--;
	return i;
}

int pricing_add(struct pricing *p, int64_t from_unix_s, struct pricing_rates rates)
{
	size_t i = find(p, from_unix_s);
	if (p->entries[i].from_unix_s == from_unix_s) {
		p->entries[i].rates = rates;
		return 0;
	}
	if (p->n == PRICING_ENTRIES_MAX)
		return -ENOBUFS;
	i++;
	memmove(&p->entries[i + 1], &p->entries[i], (p->n - i) * sizeof(p->entries[0]));
	p->entries[i] = (struct pricing_entry) { from_unix_s, rates };
	p->n++;
	return 0;
}

struct pricing_rates pricing_at(const struct pricing *p, int64_t unix_ms)
{
	int64_t unix_s = unix_ms / 1000 - (unix_ms % 1000 < 0);
	return p->entries[find(p, unix_s)].rates;
}

int pricing_cost(struct pricing_rates rates, int64_t duration_ms, int64_t vcpu_count,
		 int64_t memory_mb, int64_t *ret_nanousd)
{
	if (rates.vcpu_second_femto < 0 || rates.gib_second_femto < 0 || duration_ms < 0 ||
	    vcpu_count < 0 || memory_mb < 0)
		return -ERANGE;
	__extension__ __int128 vcpu = vcpu_count, memory = memory_mb, total;
	vcpu *= rates.vcpu_second_femto; /* twice 63 bits */
	memory *= rates.gib_second_femto;
	if (__builtin_mul_overflow(vcpu, 1024, &vcpu) ||
	    __builtin_add_overflow(vcpu, memory, &total) ||
	    __builtin_mul_overflow(total, duration_ms, &total) ||
	    __builtin_add_overflow(total, COST_DIVISOR / 2, &total))
		return -ERANGE;
	total /= COST_DIVISOR;
	if (total > INT64_MAX)
		return -ERANGE;
	*ret_nanousd = (int64_t)total;
	return 0;
}
