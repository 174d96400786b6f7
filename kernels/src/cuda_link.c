/* NVIDIA's functions, looked up at run time. cudarc is linked as if with libcuda, libcublas and their like; build.rs puts this in their place: each
 * function is a jump to an address that cuda_libraries.rs has filled in, or, until then, to an error. So the program starts without a driver.
 *
 * functions.h, written by build.rs from NVIDIA's headers, is one line a function: F(cuInit, driver). */
#include <dlfcn.h>
#include <stddef.h>

/* cuda_libraries.rs names them by these numbers. nvrtc and cublasLt are never called: their functions always fail. */
enum library { driver, cublas, curand, unused };

/* Errors that the Rust enums of each library have: CUDA_ERROR_NOT_INITIALIZED, CUBLAS_STATUS_NOT_INITIALIZED, CURAND_STATUS_NOT_INITIALIZED. */
static int missing_driver(void) { return 3; }
static int missing_cublas(void) { return 1; }
static int missing_curand(void) { return 101; }
static int missing_unused(void) { return 1; }

/* Hidden, or NVIDIA's own libraries would find these functions in place of each other's. */
#if defined(__x86_64__)
#define JUMP(name) "jmp *grpo_tui_" #name "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(name) "adrp x16, grpo_tui_" #name "\nldr x16, [x16, #:lo12:grpo_tui_" #name "]\nbr x16\n"
#else
#error "CUDA runs on x86-64 and on 64-bit Arm"
#endif
#define F(name, library)                                                                                              \
    __attribute__((visibility("hidden"))) void *grpo_tui_##name = (void *)missing_##library;                          \
    __asm__(".pushsection .text\n.p2align 4\n.globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name ":\n" \
            JUMP(name) ".size " #name ", . - " #name "\n.popsection\n");
#include "functions.h"
#undef F

static const struct { const char *name; void **address; enum library library; } functions[] = {
#define F(name, library) {#name, &grpo_tui_##name, library},
#include "functions.h"
#undef F
};

/* Takes the functions of one library from an open one. A function that an older library lacks stays an error. */
void grpo_tui_cuda_bind(int library, void *handle) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = (int)functions[i].library == library ? dlsym(handle, functions[i].name) : NULL;
        if (address) *functions[i].address = address;
    }
}
