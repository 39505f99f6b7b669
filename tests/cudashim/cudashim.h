// What kernels find in CUDA without including anything, for a C++ compiler.
//
// Blocks run one after another, the threads of a block as fibers (threads.cpp): one runs until it
// has to wait for others.

#pragma once

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
// all shared memory of a library lies in one section, which is poisoned before every block
#define __shared__ static __attribute__((section("shared_memory")))

typedef struct { unsigned x, y, z; } shim_three;
extern "C" {
extern shim_three shim_thread, shim_block, shim_block_size, shim_grid_size;
void shim_wait_for_block();
void shim_wait_for_warp();
unsigned long long shim_exchange(unsigned long long bits, unsigned lane);
unsigned shim_lane();
}
#define threadIdx shim_thread
#define blockIdx shim_block
#define blockDim shim_block_size
#define gridDim shim_grid_size

static inline void __syncthreads() { shim_wait_for_block(); }
static inline void __syncwarp(unsigned = ~0u) { shim_wait_for_warp(); }
// threads hand on these types and no smaller ones
#define SHUFFLES(T)                                                       \
  static inline T __shfl_sync(unsigned, T value, int lane) {              \
    unsigned long long bits = 0;                                          \
    __builtin_memcpy(&bits, &value, sizeof value);                        \
    bits = shim_exchange(bits, lane & 31);                                \
    __builtin_memcpy(&value, &bits, sizeof value);                        \
    return value;                                                         \
  }                                                                       \
  static inline T __shfl_xor_sync(unsigned all, T value, int mask) {      \
    return __shfl_sync(all, value, shim_lane() ^ mask);                   \
  }
SHUFFLES(int) SHUFFLES(unsigned) SHUFFLES(long long) SHUFFLES(unsigned long long)
SHUFFLES(float) SHUFFLES(double)
#undef SHUFFLES

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline double __longlong_as_double(long long bits) {
  double found;
  __builtin_memcpy(&found, &bits, sizeof found);
  return found;
}
static inline int min(int a, int b) { return a < b ? a : b; }
static inline long long min(long long a, long long b) { return a < b ? a : b; }

static inline float gd_float(unsigned short h) {
  _Float16 found;
  __builtin_memcpy(&found, &h, sizeof found);
  return found;
}
template <class T> static inline unsigned short gd_bits16(T value) {
  const _Float16 rounded = (_Float16)value;
  unsigned short bits;
  __builtin_memcpy(&bits, &rounded, sizeof bits);
  return bits;
}

#define ONE(name) float name##f(float); double name(double);
#define TWO(name) float name##f(float, float); double name(double, double);
extern "C" {
ONE(fabs) ONE(sqrt) ONE(floor) ONE(ceil) ONE(trunc) ONE(rint) ONE(exp) ONE(expm1) ONE(log)
ONE(log1p) ONE(log2) ONE(log10) ONE(sin) ONE(cos) ONE(tan) ONE(asin) ONE(acos) ONE(atan) ONE(sinh)
ONE(cosh) ONE(tanh) ONE(asinh) ONE(acosh) ONE(atanh) ONE(erf) ONE(lgamma)
TWO(pow) TWO(atan2) TWO(hypot) TWO(fmod) TWO(copysign)
}
#undef ONE
#undef TWO
