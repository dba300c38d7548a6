// The vectors of this processor.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
constexpr long LANES = 16, COLUMNS = 4;
#elif defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
constexpr long LANES = 8, COLUMNS = 2;
#elif defined(__aarch64__)
#include <arm_neon.h>
constexpr long LANES = 4, COLUMNS = 4;
#else
#error "no vectors that these kernels know"
#endif

#if defined(__AVX512F__) ? defined(__AVX512VNNI__) : defined(__AVXVNNI__)
#define HAS_BYTES 1  // products of 8-bit numbers, four summed at once in 32 bits
#else
#define HAS_BYTES 0
#endif

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif

namespace {

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Shorts __attribute__((vector_size(2 * LANES)));
typedef uint16_t Half;

struct Brain {  // bf16: the first half of a float
    uint16_t bits;
};

inline Vector load(const float* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline Vector load(const Half* p) {
#if defined(__AVX512F__)
    return (Vector)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__)
    return (Vector)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
    return (Vector)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#endif
}

inline Vector load(const Brain* p) {
    Shorts first;
    std::memcpy(&first, p, sizeof first);
    const Bits bits = __builtin_convertvector(first, Bits) << 16;
    Vector v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

// What is beyond the largest fp16 becomes that.
inline void store(Half* p, Vector v) {
    const Vector most = Vector{} + 65504.0f;
    v = v > most ? most : v < -most ? -most : v;
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
#endif
}

// To the nearest, and of two to the even one.
inline void store(Brain* p, Vector v) {
    Bits bits;
    std::memcpy(&bits, &v, sizeof bits);
    const Shorts first = __builtin_convertvector((bits + 0x7FFF + (bits >> 16 & 1)) >> 16, Shorts);
    std::memcpy(p, &first, sizeof first);
}

inline float sum(Vector v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float total = 0;
    UNROLLED for (long i = 0; i < LANES; i++) total += v[i];
    return total;
#endif
}

// Within 2 units of the last place, Cephes' polynomial.
inline Vector exponential(Vector x) {
    const Vector zero = {};
    x = x < zero - 87.3f ? zero - 87.3f : x;
    x = x > zero + 88.0f ? zero + 88.0f : x;
    const Vector magic = zero + 12582912.0f;  // adding it leaves a whole number in the last bits
    const Vector whole = x * 1.44269504f + magic;
    const Vector n = whole - magic;
    const Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vector y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    Whole bits;
    std::memcpy(&bits, &whole, sizeof bits);
    Whole power = (bits - 0x4B400000 + 127) << 23;
    Vector scale;
    std::memcpy(&scale, &power, sizeof scale);
    return y * scale;
}

}  // namespace
