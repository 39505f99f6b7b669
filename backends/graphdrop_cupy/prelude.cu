// What kernels need besides their own text: conversions, arithmetic as NumPy has it, draws, and
// how threads combine what each of them has.  Nothing here needs a header.
//
// INDEX is the type of positions: int, or long long where there are more than 2**30 elements.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define GD static __device__ __forceinline__
#define GD_INF __longlong_as_double(0x7ff0000000000000ll)
#define GD_NAN __longlong_as_double(0x7ff8000000000000ll)
#define ALL 0xffffffffu

// ---- float16, which is stored as 16 bits and computed as float
#ifdef __CUDACC__
GD float gd_float(u16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
GD u16 gd_bits16(float f) { u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; }
GD u16 gd_bits16(double d) { u16 h; asm("cvt.rn.f16.f64 %0, %1;" : "=h"(h) : "d"(d)); return h; }
#endif
template <class T> GD float gd_half(T x) { return gd_float(gd_bits16(x)); }  // rounded to float16

// ---- arithmetic.  Integers wrap; NaN propagates
template <class T> GD T gd_max(T a, T b) { return a > b || a != a ? a : b; }
template <class T> GD T gd_min(T a, T b) { return a < b || a != a ? a : b; }
template <class T> GD T gd_sign(T x) { return x > 0 ? T(1) : x < 0 ? T(-1) : x; }
template <class T> GD T gd_relu(T x) { return x <= 0 ? T(0) : x; }
template <class T> GD T gd_add(T a, T b) { return T(u64(a) + u64(b)); }
template <class T> GD T gd_sub(T a, T b) { return T(u64(a) - u64(b)); }
template <class T> GD T gd_mul(T a, T b) { return T(u64(a) * u64(b)); }
template <class T> GD T gd_abs(T x) { return x < 0 ? T(-u64(x)) : x; }

template <class T> GD T gd_pow(T x, T y) {  // by squaring
  u64 total = 1, base = u64(x), rest = u64(y);
  for (int i = 0; i < 64 && rest; i++, rest >>= 1, base *= base)
    if (rest & 1) total *= base;
  return T(total);
}

// Python's // and % of integers: 0 where the divisor is 0
template <class T> GD T gd_floordiv(T x, T y) {
  if (y == 0) return 0;
  if (T(-1) < 0 && y == T(-1)) return T(-u64(x));
  const T q = x / y;
  return (x % y != 0 && (x < 0) != (y < 0)) ? q - 1 : q;
}
template <class T> GD T gd_mod(T x, T y) {
  if (y == 0 || (T(-1) < 0 && y == T(-1))) return 0;
  const T r = x % y;
  return (r != 0 && (r < 0) != (y < 0)) ? r + y : r;
}

// the same of floats, as NumPy's npy_divmod has them
GD float gd_floordiv(float x, float y);
GD double gd_floordiv(double x, double y);
GD float gd_mod(float x, float y);
GD double gd_mod(double x, double y);
#define GD_DIVMOD(T, fmod, floor, copysign)                                    \
  GD T gd_mod(T x, T y) {                                                      \
    const T r = fmod(x, y);                                                    \
    if (y == 0) return r;                                                      \
    if (r == 0) return copysign(T(0), y);                                      \
    return (y < 0) != (r < 0) ? r + y : r;                                     \
  }                                                                            \
  GD T gd_floordiv(T x, T y) {                                                 \
    if (y == 0) return x / y;                                                  \
    const T r = fmod(x, y);                                                    \
    T q = (x - r) / y;                                                         \
    if (r != 0 && (y < 0) != (r < 0)) q -= 1;                                  \
    if (q == 0) return copysign(T(0), x / y);                                  \
    const T down = floor(q);                                                   \
    return q - down > T(0.5) ? down + 1 : down;                                \
  }
GD_DIVMOD(float, fmodf, floorf, copysignf)
GD_DIVMOD(double, fmod, floor, copysign)

GD float gd_sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}
GD double gd_sigmoid(double x) {
  const double e = exp(-fabs(x));
  return (x >= 0 ? 1.0 : e) / (1.0 + e);
}
GD float gd_softplus(float x) { return gd_relu(x) + log1pf(expf(-fabsf(x))); }
GD double gd_softplus(double x) { return gd_relu(x) + log1p(exp(-fabs(x))); }
GD float gd_sigmoid_loss(float x, float t) { return gd_relu(x) - x * t + log1pf(expf(-fabsf(x))); }
GD double gd_sigmoid_loss(double x, double t) { return gd_relu(x) - x * t + log1p(exp(-fabs(x))); }
GD float gd_logaddexp(float x, float y) {
  if (x == y) return x + 0.693147180559945309f;  // both may be infinite
  return gd_max(x, y) + log1pf(expf(gd_min(x, y) - gd_max(x, y)));
}
GD double gd_logaddexp(double x, double y) {
  if (x == y) return x + 0.693147180559945309;
  return gd_max(x, y) + log1p(exp(gd_min(x, y) - gd_max(x, y)));
}
// as SciPy has it: -inf at -inf, and inf where 1 / x overflows
GD float gd_lgamma(float x) { return x == -float(GD_INF) ? x : lgammaf(x); }
GD double gd_lgamma(double x) {
  if (x == -GD_INF) return x;
  return fabs(1 / x) == GD_INF ? GD_INF : lgamma(x);
}

// Where a row is, counted from the end if below 0; -1 if there is none.
template <class T> GD long long gd_position(T at, long long limit) {
  if (T(-1) > 0) return u64(at) < u64(limit) ? (long long)at : -1;
  const long long from_start = at < 0 ? (long long)at + limit : (long long)at;
  return from_start >= 0 && from_start < limit ? from_start : -1;
}

// ---- draws: Philox4x64-10 (Salmon et al. 2011), counted as NumPy does
struct Block { u64 w[4]; };

GD Block gd_philox(u64 seed, u64 site, u64 call, u64 step, u64 example, u64 block) {
  u64 a = block + 1, b = call, c = step, d = example;
  for (int i = 0; i < 10; i++) {
    const u64 m = 0xD2E7470EE14C6C93ull, n = 0xCA5A826395121157ull;
    const u64 high0 = __umul64hi(m, a), high1 = __umul64hi(n, c);
    const u64 low0 = m * a, low1 = n * c;
    a = high1 ^ b ^ seed;
    b = low1;
    c = high0 ^ d ^ site;
    d = low0;
    seed += 0x9E3779B97F4A7C15ull;
    site += 0xBB67AE8584CAA73Bull;
  }
  return Block{{a, b, c, d}};
}

// The bits of 16 elements that follow on one another: whether each one's lane >= threshold.
GD u32 gd_kept(const u64 *key, u64 site, u64 step, u64 example, u64 block, long long threshold) {
  const Block words = gd_philox(key[0], site, key[1], step, example, block);
  u32 bits = 0;
  for (int i = 0; i < 16; i++)
    bits |= u32((long long)((words.w[i / 4] >> (16 * (i % 4))) & 0xffff) >= threshold) << i;
  return bits;
}
// The bit of one element.
GD bool gd_keeps(const u64 *key, u64 site, u64 step, u64 example, u64 element,
                 long long threshold) {
  return gd_kept(key, site, step, example, element / 16, threshold) >> (element % 16) & 1;
}
// What kept elements are multiplied by.
GD double gd_scale(long long threshold) {
  return threshold < 65536 ? 65536.0 / double(65536 - threshold) : 0.0;
}

// The lane of one element: a quarter of a block, or an eighth.
GD u64 gd_lane64(const u64 *key, u64 site, u64 step, u64 example, u64 element) {
  const Block words = gd_philox(key[0], site, key[1], step, example, element / 4);
  const u64 low = element & 1 ? words.w[1] : words.w[0];
  const u64 high = element & 1 ? words.w[3] : words.w[2];
  return element & 2 ? high : low;
}
GD u32 gd_lane32(const u64 *key, u64 site, u64 step, u64 example, u64 element) {
  return u32(gd_lane64(key, site, step, example, element / 2) >> (element % 2 * 32));
}
// A standard normal number of 64 bits (Box and Muller 1958).
GD double gd_normal(u64 lane) {
  const double radius = sqrt(-2.0 * log((double(lane >> 32) + 0.5) * 0x1p-32));
  return radius * cos(6.283185307179586 * (double(lane & 0xffffffffull) * 0x1p-32));
}
// An integer from low to last; the span is 0 where it is all of 2**64.
GD u64 gd_integer(u64 low, u64 last, u64 lane) {
  const u64 span = last - low + 1;
  return low + (span == 0 ? lane : __umul64hi(lane, span));
}

// ---- how threads combine what they have
struct Sum { template <class T> GD T of(T a, T b) { return a + b; } };
struct Max { template <class T> GD T of(T a, T b) { return gd_max(a, b); } };
struct Min { template <class T> GD T of(T a, T b) { return gd_min(a, b); } };
struct Product { template <class T> GD T of(T a, T b) { return a * b; } };

// The values of all threads of a row (blockDim.x of them, whole warps) combined, in an order that
// depends on their number alone.  All threads of the block must call it.
template <class How, class T> GD T gd_in_row(T value) {
  __shared__ T parts[32];
  for (int d = 16; d > 0; d /= 2) value = How::of(value, __shfl_xor_sync(ALL, value, d));
  const int warps = blockDim.x / 32;
  if (warps == 1) return value;
  const int first = threadIdx.y * warps;
  __syncthreads();  // what another call left here has been read
  if (threadIdx.x % 32 == 0) parts[first + threadIdx.x / 32] = value;
  __syncthreads();
  value = parts[first];
  for (int w = 1; w < warps; w++) value = How::of(value, parts[first + w]);
  return value;
}

// The values of the threads of a column (blockDim.y of them) combined, for the thread at its top.
template <class How, class T> GD T gd_in_column(T value) {
  __shared__ T parts[8][33];
  __syncthreads();
  parts[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  if (threadIdx.y == 0)
    for (int y = 1; y < blockDim.y; y++) value = How::of(value, parts[y][threadIdx.x]);
  return value;
}

// Parts of a reduction, `count` for each result, side by side as [part][result], combined.
template <class How, class T> GD T gd_join(const T *parts, INDEX results, INDEX count, INDEX i,
                                           T start) {
  for (INDEX c = threadIdx.x; c < count; c += blockDim.x)
    start = How::of(start, parts[c * results + i]);
  return gd_in_row<How>(start);
}
