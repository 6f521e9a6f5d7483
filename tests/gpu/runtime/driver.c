/* libcuda.so.1: what libraries ask of the driver itself. All else that torch's libcaffe2_nvrtc.so wants of it does nothing
 * and returns 0 (the build makes those functions). Kernels that are compiled at run time can so be loaded, not run. */
#include <stddef.h>

int cuInit(unsigned flags) { return (void)flags, 0; }
int cuDeviceGet(int *out, int number) { return *out = number, 0; }
int cuCtxGetCurrent(void **out) { return *out = (void *)1, 0; }
int cuGetErrorString(int error, const char **words) { return (void)error, *words = "an error of the pretended driver", 0; }

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    (void)device;
    *flags = 0;
    *active = 1;
    return 0;
}
