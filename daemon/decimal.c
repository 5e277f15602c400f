/* Prices as text to integers, without a floating-point number on the way.
 *
 * The syntax is judged over the whole text first, so that the caller can tell "not a number" from
 * "a number that does not fit". More than 15 decimals are refused even if they are zeros: nothing
 * is ever rounded here.
 */
#include "decimal.h"

#include <errno.h>

#define DECIMALS_MAX 15
#define WHOLE_MAX 1000

static size_t count_digits(const char *s, size_t len)
{
	size_t n = 0;
	while (n < len && s[n] >= '0' && s[n] <= '9')
		n++;
	return n;
}

int decimal_parse(const char *s, size_t len, int64_t *ret_femto)
{
	if (!s)
		return -EINVAL;
	size_t n_whole = count_digits(s, len);
	if (n_whole == 0)
		return -EINVAL;
	const char *decimals = s + n_whole + 1;
	size_t n_decimals = 0;
	if (n_whole < len) {
		n_decimals = count_digits(decimals, len - n_whole - 1);
		if (s[n_whole] != '.' || n_decimals == 0 || n_whole + 1 + n_decimals != len)
			return -EINVAL;
	}
	if (n_decimals > DECIMALS_MAX)
		return -ERANGE;

	int64_t value = 0;
	for (size_t i = 0; i < n_whole; i++)
		value = base_min_i64(value * 10 + (s[i] - '0'), WHOLE_MAX + 1);
	value *= DECIMAL_SCALE;
	int64_t weight = DECIMAL_SCALE;
	for (size_t i = 0; i < n_decimals; i++) {
		weight /= 10;
		value += (decimals[i] - '0') * weight;
	}
	if (value > WHOLE_MAX * DECIMAL_SCALE)
		return -ERANGE;
	*ret_femto = value;
	return 0;
}
