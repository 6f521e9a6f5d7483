/* Kernels: their names, which compiled code registers when it is loaded, and launches, which only count. */
#include <string.h>
#include "pretended.h"

#define SLOTS (1u << 19) /* a hash table; torch 2.15 registers about 100,000 */

static struct { const void *function; const char *name; } kernels[SLOTS];

static unsigned slot_of(const void *function) {
    unsigned slot = (unsigned)(((uintptr_t)function >> 4) * 2654435761u) % SLOTS;
    for (unsigned tries = 0; tries < SLOTS && kernels[slot].function && kernels[slot].function != function; tries++)
        slot = (slot + 1) % SLOTS;
    return slot;
}

static const char *name_of(const void *function) {
    unsigned slot = slot_of(function);
    return kernels[slot].function == function ? kernels[slot].name : "unknown kernel";
}

/* ---- registration, called by what nvcc puts into every library */

void **__cudaRegisterFatBinary(void *code) {
    static void *handle;
    (void)code;
    return &handle;
}

void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { (void)handle; }

void __cudaRegisterFunction(void **handle, const char *function, char *device_function, const char *name, int thread_limit, void *thread, void *block, void *block_size, void *grid, int *size) {
    (void)handle, (void)device_function, (void)thread_limit, (void)thread, (void)block, (void)block_size, (void)grid, (void)size;
    unsigned slot = slot_of(function);
    kernels[slot].function = function;
    kernels[slot].name = name;
}

void __cudaRegisterVar(void **handle, char *variable, char *address, const char *name, int external, size_t size, int constant, int global) {
    (void)handle, (void)variable, (void)address, (void)name, (void)external, (void)size, (void)constant, (void)global;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}

/* ---- launches */

static __thread struct { dim3 grid, block; size_t shared; cudaStream_t stream; } configuration;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    configuration.grid = grid;
    configuration.block = block;
    configuration.shared = shared;
    configuration.stream = stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, cudaStream_t *stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    *stream = configuration.stream;
    return cudaSuccess;
}

static int possible(dim3 grid, dim3 block, size_t shared) {
    size_t threads = (size_t)block.x * block.y * block.z;
    return grid.x && grid.y && grid.z && threads && grid.x <= 2147483647u && grid.y <= 65535 && grid.z <= 65535 &&
           block.x <= 1024 && block.y <= 1024 && block.z <= 64 && threads <= 1024 && shared <= 227u << 10;
}

static cudaError_t launch(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    if (!possible(grid, block, shared)) {
        note(BAD_LAUNCH, name, shared, device_of(stream), stream, 0);
        return fail(cudaErrorInvalidConfiguration);
    }
    cudaError_t error;
    enum fate fate = put_into(stream, name, &error);
    if (fate == REFUSED)
        return error;
    size_t threads = (size_t)grid.x * grid.y * grid.z * block.x * block.y * block.z;
    note(KERNEL, name, threads, device_of(stream), stream, fate == CAPTURED);
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    (void)arguments;
    return launch(name_of(function), grid, block, shared, stream);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return cudaLaunchKernel((const void *)kernel, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return cudaLaunchKernel(function, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *function, void **arguments) {
    return cudaLaunchKernel(function, c->gridDim, c->blockDim, arguments, c->dynamicSmemBytes, c->stream);
}

cudaError_t library_kernel(const char *name, cudaStream_t stream) {
    cudaError_t error;
    enum fate fate = put_into(stream, name, &error);
    if (fate == REFUSED)
        return error;
    note(KERNEL, name, 0, device_of(stream), stream, fate == CAPTURED);
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    cudaError_t error;
    enum fate fate = put_into(stream, "host function", &error);
    if (fate == RUNS)
        function(data);
    return fate == REFUSED ? error : cudaSuccess;
}

/* ---- what a launch asks before */

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    (void)function;
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = 90;
    attributes->maxDynamicSharedSizeBytes = 227 << 10;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads, size_t shared, unsigned flags) {
    (void)function, (void)shared, (void)flags;
    int fitting = 2048 / (threads > 0 ? threads : 1);
    *blocks = fitting < 32 ? fitting : 32;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}

cudaError_t cudaGetSymbolAddress(void **address, const void *symbol) {
    static char variables[1 << 16];
    (void)symbol;
    *address = variables;
    return cudaSuccess;
}
