/* libnvidia-ml.so.1: torch counts devices by it where it is there. So that a machine with real devices tells of the
 * pretended ones, it is pretended too. */
#include <stdlib.h>

int nvmlInit(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(int *count) {
    const char *text = getenv("PRETENDED_GPUS");
    *count = text && *text ? atoi(text) : 1;
    return 0;
}
