#include "ctl_internal.h"

#include "secrecy.h"

/* e2b-hookctl. */

int main(int argc, char **argv)
{
	secrecy_begin();
	return ctl_command_run(argc, argv);
}
