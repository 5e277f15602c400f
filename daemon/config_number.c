/* Whole numbers with a unit: counts, sizes, durations, modes, prices. All are int64_t, never less
 * than 0 when read from text. Bounds come from the key's row. No floating point.
 */
#include "config_internal.h"
#include "clock.h"
#include "decimal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NANO INT64_C(1000000000)

/* Digits up to `*end`; -EINVAL if there are none, -ERANGE if they do not fit. */
static int number_read_digits(const char *text, const char **end, int64_t base, int64_t *ret)
{
	int64_t value = 0;
	const char *s = text;

	for (; isdigit((unsigned char)*s) && *s - '0' < base; s++)
		if (__builtin_mul_overflow(value, base, &value) ||
		    __builtin_add_overflow(value, *s - '0', &value))
			return -ERANGE;
	*end = s;
	*ret = value;
	return s == text ? -EINVAL : 0;
}

struct number_unit {
	const char *name;
	int64_t scale;
};

/* Largest first. */
static const struct number_unit size_units[] = {
	{ "TiB", INT64_C(1) << 40 },
	{ "GiB", INT64_C(1) << 30 },
	{ "MiB", INT64_C(1) << 20 },
	{ "KiB", INT64_C(1) << 10 },
	{ "", 1 },
};
static const struct number_unit duration_units[] = {
	{ "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 },
};
static const struct number_unit plain_units[] = { { "", 1 } };

static int number_read_size(const char *text, int64_t *ret)
{
	const char *unit;
	int64_t number;
	int rc = number_read_digits(text, &unit, 10, &number);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < ARRAY_SIZE(size_units); i++)
		if (strcmp(unit, size_units[i].name) == 0)
			return __builtin_mul_overflow(number, size_units[i].scale, ret) ? -ERANGE
											: 0;
	return -EINVAL;
}

static int number_read_whole(const char *text, int64_t base, int64_t *ret)
{
	const char *end;
	int rc = number_read_digits(text, &end, base, ret);
	if (rc < 0)
		return rc;
	return *end == '\0' ? 0 : -EINVAL;
}

/* A decimal in 10^-9; at most nine decimals. */
static int number_read_decimal(const char *text, int64_t *ret)
{
	const char *end, *decimals;
	int64_t whole, part = 0;
	int rc = number_read_digits(text, &end, 10, &whole);
	if (rc == 0 && *end == '.') {
		decimals = end + 1;
		rc = number_read_digits(decimals, &end, 10, &part);
		if (rc == 0 && end - decimals > 9)
			rc = -ERANGE;
		for (ptrdiff_t n = end - decimals; rc == 0 && n < 9; n++)
			part *= 10;
	}
	if (rc < 0 || *end)
		return rc < 0 ? rc : -EINVAL;
	return __builtin_mul_overflow(whole, NANO, &whole) ||
			       __builtin_add_overflow(whole, part, ret)
		       ? -ERANGE
		       : 0;
}

static int number_read(enum config_type type, const char *text, int64_t *ret)
{
	if (type == CONFIG_TYPE_SIZE)
		return number_read_size(text, ret);
	if (type == CONFIG_TYPE_DURATION)
		return clock_parse_duration(text, ret);
	if (type == CONFIG_TYPE_RATE)
		return decimal_parse(text, strlen(text), ret);
	if (type == CONFIG_TYPE_DECIMAL)
		return number_read_decimal(text, ret);
	return number_read_whole(text, type == CONFIG_TYPE_OCTAL ? 8 : 10, ret);
}

static const char *number_form(enum config_type type)
{
	if (type == CONFIG_TYPE_SIZE)
		return "is not a size; write bytes or for example 64KiB, 1MiB or 2GiB";
	if (type == CONFIG_TYPE_DURATION)
		return "is not a duration; write for example 15s, 10m, 24h or 90d";
	if (type == CONFIG_TYPE_RATE)
		return "is not a price; write a decimal such as 0.000014";
	if (type == CONFIG_TYPE_DECIMAL)
		return "is not a decimal; write for example 0.25 or 100";
	if (type == CONFIG_TYPE_OCTAL)
		return "is not an octal mode; write for example 0660";
	return "is not a whole number";
}

static void number_format(enum config_type type, int64_t value, char *buf, size_t size)
{
	const struct number_unit *units = plain_units;
	if (type == CONFIG_TYPE_SIZE)
		units = size_units;
	else if (type == CONFIG_TYPE_DURATION)
		units = duration_units;
	else if (type == CONFIG_TYPE_RATE) {
		(void)snprintf(buf, size, "%" PRId64 " USD per second, with at most 15 decimals",
			       value / DECIMAL_SCALE);
		return;
	} else if (type == CONFIG_TYPE_DECIMAL) {
		(void)snprintf(buf, size, value % NANO ? "%.9g" : "%.0f", (double)value / 1e9);
		return;
	} else if (type == CONFIG_TYPE_OCTAL) {
		(void)snprintf(buf, size, "%04" PRIo64, (uint64_t)value);
		return;
	}
	while (units->scale > 1 && (value == 0 || value % units->scale != 0))
		units++;
	(void)snprintf(buf, size, "%" PRId64 "%s", value / units->scale, value ? units->name : "");
}

void config_number_bounds(const struct config_key *key, char *buf, size_t size)
{
	char min[48], max[48];
	number_format(key->type, key->min, min, sizeof(min));
	number_format(key->type, key->max, max, sizeof(max));
	if (key->min == 0)
		(void)snprintf(buf, size, "at most %s", max);
	else
		(void)snprintf(buf, size, "%s to %s", min, max);
	if (key->zero) {
		size_t len = strlen(buf);
		(void)snprintf(buf + len, size - len, ", or 0: %s", key->zero);
	}
}

int config_number_parse(const struct config_key *key, int64_t *ret, const char *text,
			char why[static CONFIG_WHY_MAX])
{
	char quoted[CONFIG_QUOTE_MAX], bounds[128];
	int64_t value = 0;
	int rc = number_read(key->type, text, &value);

	if (rc == 0 && ((value >= key->min && value <= key->max) || (value == 0 && key->zero))) {
		*ret = value;
		return 0;
	}
	(void)config_report_quote(quoted, text);
	if (rc == -EINVAL) {
		(void)snprintf(why, CONFIG_WHY_MAX, "%s %s", quoted, number_form(key->type));
		return -EINVAL;
	}
	config_number_bounds(key, bounds, sizeof(bounds));
	(void)snprintf(why, CONFIG_WHY_MAX, "%s is out of range (%s)", quoted, bounds);
	return -EINVAL;
}
