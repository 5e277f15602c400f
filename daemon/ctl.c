#include "ctl_internal.h"

/* e2b-hookctl. */

int main(int argc, char **argv)
{
	return ctl_command_run(argc, argv);
}
