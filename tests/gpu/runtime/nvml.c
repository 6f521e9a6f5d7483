/* libnvidia-ml.so.1: torch counts devices by it where it is there. So that a machine with real devices tells of the
 * pretended ones, it is pretended too: it can count, no other process uses a device, and more it does not know. */
#include <stdlib.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3 }; /* of nvmlReturn_t */

int nvmlInit(void) { return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { return error ? "Not Supported" : "Success"; }

int nvmlDeviceGetCount_v2(int *count) {
    const char *text = getenv("PRETENDED_GPUS");
    *count = text && *text ? atoi(text) : 1;
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) { return *device = (void *)bus, SUCCESS; }
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, void *found) { return (void)device, (void)found, *count = 0, SUCCESS; }

#define UNKNOWN(name) int name(void) { return NOT_SUPPORTED; }
UNKNOWN(nvmlDeviceGetHandleByIndex_v2)
UNKNOWN(nvmlDeviceGetHandleByUUID)
UNKNOWN(nvmlDeviceGetUUID)
UNKNOWN(nvmlDeviceGetNvLinkRemoteDeviceType)
UNKNOWN(nvmlDeviceGetNvLinkRemotePciInfo_v2)
UNKNOWN(nvmlDeviceGetP2PStatus)
UNKNOWN(nvmlDeviceGetGpuFabricInfoV)
UNKNOWN(nvmlSystemGetCudaDriverVersion_v2)
