/* Runs a fuzz target over every file of its corpus, each on an exact-size heap copy so that a
 * sanitizer sees over-reads. */
#include "base.h"

#include <dirent.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *directory, const char *name)
{
	char path[4096];
	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	CLEANUP_FILE FILE *f = fopen(path, "rb");
	if (!f)
		return -1;
	(void)fseek(f, 0, SEEK_END);
	long size = ftell(f);
	rewind(f);
	CLEANUP_FREE uint8_t *data = malloc((size_t)size ? (size_t)size : 1);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size)
		return -1;
	return LLVMFuzzerTestOneInput(data, (size_t)size);
}

int main(int argc, char **argv)
{
	size_t n = 0;
	for (int i = 1; i < argc; i++) {
		DIR *d = opendir(argv[i]);
		if (!d) {
			perror(argv[i]);
			return 1;
		}
		for (struct dirent *e; (e = readdir(d));) {
			if (e->d_name[0] == '.')
				continue;
			if (replay_file(argv[i], e->d_name) != 0) {
				(void)fprintf(stderr, "%s/%s: failed\n", argv[i], e->d_name);
				return 1;
			}
			n++;
		}
		(void)closedir(d);
	}
	printf("%zu inputs\n", n);
	return n ? 0 : 1;
}
