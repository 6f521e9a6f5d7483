/* Devices and their properties (those of an H100 where something depends on them), versions and errors.
 *
 * PRETENDED_GPUS says how many the machine has (1), PRETENDED_GPU_MIB how much memory each (81920). A process sees those
 * that CUDA_VISIBLE_DEVICES lists when it first asks; like the real runtime, it does not look a second time. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pretended.h"

static pthread_once_t looked = PTHREAD_ONCE_INIT;
static int physical[PRETENDED_MAX_DEVICES], devices;
static size_t memory_bytes;
static __thread int device;
static __thread cudaError_t last_error;

static long number(const char *variable, long otherwise) {
    const char *text = getenv(variable);
    return text && *text ? atol(text) : otherwise;
}

static void look(void) {
    int all = (int)number("PRETENDED_GPUS", 1);
    memory_bytes = (size_t)number("PRETENDED_GPU_MIB", 81920) << 20;
    if (all > PRETENDED_MAX_DEVICES)
        all = PRETENDED_MAX_DEVICES;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!visible) {
        for (; devices < all; devices++)
            physical[devices] = devices;
        return;
    }
    while (*visible) { /* the list ends at the first entry that is no device */
        char *end;
        long wanted = strtol(visible, &end, 10);
        if (end == visible || wanted < 0 || wanted >= all || devices == PRETENDED_MAX_DEVICES)
            return;
        physical[devices++] = (int)wanted;
        visible = end + strspn(end, ", ");
    }
}

int device_count(void) {
    pthread_once(&looked, look);
    return devices;
}

int current_device(void) { return device; }

size_t memory_limit(void) {
    pthread_once(&looked, look);
    return memory_bytes;
}

cudaError_t fail(cudaError_t error) { return last_error = error; }

/* The number that a device has on the machine. */
int pretended_physical(int number) {
    return number >= 0 && number < device_count() ? physical[number] : -1;
}

/* Devices of another size from now on. */
void pretended_set_memory(size_t bytes) {
    pthread_once(&looked, look);
    memory_bytes = bytes;
}

/* ---- the runtime's functions */

cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_count();
    return *count ? cudaSuccess : fail(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *out) {
    *out = device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int wanted) {
    if (wanted < 0 || wanted >= device_count())
        return fail(cudaErrorInvalidDevice);
    device = wanted;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int number) {
    if (number < 0 || number >= device_count())
        return fail(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "Pretended GPU");
    memset(&p->uuid, 1 + physical[number], sizeof p->uuid);
    p->totalGlobalMem = memory_bytes;
    p->major = 9;
    p->warpSize = 32;
    p->multiProcessorCount = 132;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = 227 << 10;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->totalConstMem = 64 << 10;
    p->l2CacheSize = 50 << 20;
    p->memPitch = 2147483647;
    p->textureAlignment = 512;
    p->memoryBusWidth = 5120;
    p->asyncEngineCount = 3;
    p->concurrentKernels = p->unifiedAddressing = 1;
    p->pciBusID = physical[number];
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int number) {
    struct cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, number);
    if (error)
        return error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX: *value = p.maxThreadsDim[0]; break;
    case cudaDevAttrMaxBlockDimY: *value = p.maxThreadsDim[1]; break;
    case cudaDevAttrMaxBlockDimZ: *value = p.maxThreadsDim[2]; break;
    case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: *value = p.maxGridSize[1]; break;
    case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[2]; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)p.sharedMemPerMultiprocessor; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = p.regsPerBlock; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = p.regsPerMultiprocessor; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = p.maxBlocksPerMultiProcessor; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    default: *value = 1; /* most of the others are yes or no */
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int number) {
    snprintf(text, (size_t)length, "0000:%02x:00.0", pretended_physical(number));
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int from, int to) {
    *can = from != to;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) { return last_error; }

/* ---- what is fetched from the driver by name: of all of it only one answer is ever looked at */

static int primary_context_state(int number, unsigned *flags, int *active) {
    (void)number;
    *flags = 0;
    *active = 1;
    return 0;
}

static int driver_function(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *status) {
    (void)version, (void)flags;
    *out = !strcmp(name, "cuDevicePrimaryCtxGetState") ? (void *)primary_context_state : (void *)driver_function;
    if (status)
        *status = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

/* ---- errors */

/* The words of the real runtime, where somebody may look for them. */
static const struct { cudaError_t error; const char *name, *words; } ERRORS[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
};

const char *cudaGetErrorString(cudaError_t error) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].error == error)
            return ERRORS[i].words;
    return "an error that the pretended runtime has no words for";
}

const char *cudaGetErrorName(cudaError_t error) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].error == error)
            return ERRORS[i].name;
    return "cudaErrorUnknown";
}
