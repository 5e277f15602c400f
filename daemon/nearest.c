#include "nearest.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_LEN 64

static size_t min3(size_t a, size_t b, size_t c)
{
	return base_min_size(a, base_min_size(b, c));
}

size_t nearest_distance(const char *a, const char *b)
{
	size_t rows[3][NAME_MAX_LEN + 1];
	size_t a_len = strlen(a), b_len = strlen(b);
	if (a_len > NAME_MAX_LEN || b_len > NAME_MAX_LEN)
		return SIZE_MAX;

	for (size_t j = 0; j <= b_len; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			int x = tolower((unsigned char)a[i - 1]),
			    y = tolower((unsigned char)b[j - 1]);
			row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y));
			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]))
				row[j] = base_min_size(row[j], above2[j - 2] + 1);
		}
	}
	return rows[a_len % 3][b_len];
}

size_t nearest_nearness(const char *given, const char *known)
{
	size_t shorter = base_min_size(strlen(given), strlen(known));
	if (shorter >= 4 && strncasecmp(given, known, shorter) == 0)
		return 1;
	size_t distance = nearest_distance(given, known);
	return distance <= 1 + strlen(known) / 4 ? distance : SIZE_MAX;
}
