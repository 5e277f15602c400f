/* Exact decimals for prices: an integer count of 10^-15. No floating point touches money. */
#pragma once

#include "base.h"

#define DECIMAL_SCALE INT64_C(1000000000000000)

/* `0.000014`, `1`; `.5` and `1.` are refused; no sign, no exponent; at most 15 decimals and 1000 in
 * value. -EINVAL: not such a number; -ERANGE: too large or too fine. */
MUST_CHECK int decimal_parse(const char *s, size_t len, int64_t *ret_femto);
