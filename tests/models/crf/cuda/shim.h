// CUDA's own words, as C++ for a CPU: the kernels of models/cuda compile and run behind this header, unchanged.
//
// Every thread of a block is a fiber. They take turns, each up to its next meeting point (__syncthreads or a shuffle);
// blocks run one after the other. The order of both depends on a seed, so that a test can tell whether it matters.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__ __attribute__((visibility("hidden")))
#define __device__
#define __shared__ static
#define __restrict__

struct Dim {
    unsigned x, y, z;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;

namespace fibers {
const int MOST = 1024;
const size_t STACK = 1 << 16;

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool begun = false, done = true;
    int shuffles = 0;
};
static Fiber fiber[MOST];
static jmp_buf scheduler;
static int current, alive, waiting, generation;
static uint32_t slots[2][MOST];
static void (*body)();

static void back() {
    if (!_setjmp(fiber[current].place)) _longjmp(scheduler, 1);
}

static void life() {
    for (;;) {
        body();
        fiber[current].done = true;
        back();
    }
}

static void resume(int thread) {
    current = thread;
    threadIdx.x = thread;
    if (_setjmp(scheduler)) return;
    if (fiber[thread].begun) _longjmp(fiber[thread].place, 1);
    fiber[thread].begun = true;
    getcontext(&fiber[thread].context);
    fiber[thread].context.uc_stack.ss_sp = malloc(STACK);
    fiber[thread].context.uc_stack.ss_size = STACK;
    makecontext(&fiber[thread].context, life, 0);
    setcontext(&fiber[thread].context);
}

static void run_block(unsigned seed) {
    const int threads = blockDim.x;
    for (int t = 0; t < threads; ++t) fiber[t].done = false, fiber[t].shuffles = 0;
    alive = threads;
    waiting = 0;
    while (alive) {
        for (int i = 0; i < threads; ++i) {
            const int t = seed ? (i * 5 + seed) % threads : i;  // 5 and a power of two: every thread once
            if (fiber[t].done) continue;
            resume(t);
            if (fiber[t].done) --alive;
        }
    }
}

template <typename... Types, size_t... Index>
void call(void (*kernel)(Types...), void** args, std::index_sequence<Index...>) {
    static void (*chosen)(Types...);
    static void** given;
    chosen = kernel;
    given = args;
    body = [] { chosen(*(std::remove_reference_t<Types>*)given[Index]...); };
}

template <typename... Types>
void prepare(void (*kernel)(Types...), void** args) {
    call(kernel, args, std::index_sequence_for<Types...>{});
}

// Whether the arguments have the kernel's own types: 'p' pointer, 'f' float, 'i' int, 'l' 64 bits.
template <typename T>
constexpr char kind() {
    return std::is_pointer_v<T> ? 'p' : std::is_same_v<T, float> ? 'f' : sizeof(T) == 4 ? 'i' : 'l';
}

template <typename... Types>
bool takes(void (*)(Types...), const char* kinds) {
    const char wanted[] = {kind<Types>()..., 0};
    return strcmp(wanted, kinds) == 0;
}
}  // namespace fibers

static inline void __syncthreads() {
    const int mine = fibers::generation;
    if (++fibers::waiting == fibers::alive) {
        fibers::waiting = 0;
        ++fibers::generation;
    }
    while (fibers::generation == mine) fibers::back();
}

template <typename T>
static inline T __shfl_xor_sync(unsigned, T value, int mask) {
    static_assert(sizeof(T) == 4, "words only");
    const int me = fibers::current, turn = fibers::fiber[me].shuffles++ & 1;
    memcpy(&fibers::slots[turn][me], &value, 4);
    fibers::back();
    memcpy(&value, &fibers::slots[turn][me ^ mask], 4);
    return value;
}

template <typename T>
static inline T atomicAdd(T* address, T value) {
    const T old = *address;
    *address = old + value;
    return old;
}

static inline unsigned long long atomicCAS(unsigned long long* address, unsigned long long expected,
                                           unsigned long long value) {
    const unsigned long long old = *address;
    if (old == expected) *address = value;
    return old;
}

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, 4);
    return bits;
}
static inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

#define LAUNCHER(kernel)                                                                                \
    extern "C" __attribute__((visibility("default"))) int launch_##kernel(                              \
        unsigned x, unsigned y, unsigned threads, const char* kinds, void** args, unsigned seed) {       \
        if (!fibers::takes(kernel, kinds) || threads > fibers::MOST || threads & (threads - 1))         \
            return 1;                                                                                   \
        fibers::prepare(kernel, args);                                                                  \
        gridDim = {x, y, 1};                                                                            \
        blockDim = {threads, 1, 1};                                                                     \
        const unsigned blocks = x * y;                                                                  \
        for (unsigned i = 0; i < blocks; ++i) {                                                         \
            const unsigned block = seed & 1 ? blocks - 1 - i : i;                                       \
            blockIdx = {block % x, block / x, 0};                                                       \
            fibers::run_block(seed);                                                                    \
        }                                                                                               \
        return 0;                                                                                       \
    }
