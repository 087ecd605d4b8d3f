// Sixteen floats at a time, with whatever instructions the including file is compiled for.
//
// Everything here has internal linkage: the same names are compiled several times with different instruction sets, and a
// linker that merged them could put AVX-512 code where only SSE is allowed. For the same reason nothing of the standard
// library is called. Products are fused only where `fma` says so, so a result is the same bits wherever it is computed.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kLanes = 16;

inline float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of_bf16(uint16_t value) { return float_of_bits(static_cast<uint32_t>(value) << 16); }

// Round to nearest, ties to even; a NaN stays one.
inline uint16_t bf16_of_float(float value) {
    const uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#if defined(__AVX512F__)

using F16 = __m512;

inline F16 zero() { return _mm512_setzero_ps(); }
inline F16 all(float value) { return _mm512_set1_ps(value); }
inline F16 load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, F16 v) { _mm512_storeu_ps(to, v); }
inline F16 add(F16 a, F16 b) { return _mm512_add_ps(a, b); }
inline F16 sub(F16 a, F16 b) { return _mm512_sub_ps(a, b); }
inline F16 mul(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
inline F16 div(F16 a, F16 b) { return _mm512_div_ps(a, b); }
inline F16 max(F16 a, F16 b) { return _mm512_max_ps(a, b); }
inline F16 min(F16 a, F16 b) { return _mm512_min_ps(a, b); }
inline F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
inline F16 nearest(F16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a * 2^n for whole n.
inline F16 scaled(F16 a, F16 n) { return _mm512_scalef_ps(a, n); }
// The first `count` lanes of `v`, `other` in the rest.
inline F16 first_lanes(F16 v, int count, float other) {
    const auto keep = static_cast<__mmask16>((1u << count) - 1u);
    return _mm512_mask_mov_ps(_mm512_set1_ps(other), keep, v);
}

#elif defined(__AVX2__) && defined(__FMA__)

struct F16 {
    __m256 low, high;
};

inline F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline F16 load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float* to, F16 v) {
    _mm256_storeu_ps(to, v.low);
    _mm256_storeu_ps(to + 8, v.high);
}
inline F16 add(F16 a, F16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline F16 sub(F16 a, F16 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline F16 mul(F16 a, F16 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline F16 div(F16 a, F16 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline F16 max(F16 a, F16 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline F16 min(F16 a, F16 b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline F16 fma(F16 a, F16 b, F16 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline F16 nearest(F16 a) {
    constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.low, kMode), _mm256_round_ps(a.high, kMode)};
}
// a * 2^n for whole n; below the smallest normal number it is 0.
inline __m256 scaled(__m256 a, __m256 n) {
    const __m256 least = _mm256_set1_ps(-126.0f), most = _mm256_set1_ps(127.0f);
    const __m256i exponent = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(n, least), most));
    const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23));
    return _mm256_and_ps(_mm256_mul_ps(a, power), _mm256_cmp_ps(n, least, _CMP_GE_OQ));
}
inline F16 scaled(F16 a, F16 n) { return {scaled(a.low, n.low), scaled(a.high, n.high)}; }
// The first `count` lanes of `v`, `other` in the rest.
inline F16 first_lanes(F16 v, int count, float other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
    const __m256 high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count - 8), lane));
    const __m256 rest = _mm256_set1_ps(other);
    return {_mm256_blendv_ps(rest, v.low, low), _mm256_blendv_ps(rest, v.high, high)};
}

#else  // loops that every compiler turns into what its target has: SSE2, NEON

struct F16 {
    float f[kLanes];
};

template <class Function>
inline F16 each(Function function) {
    F16 result;
    for (int i = 0; i < kLanes; ++i) result.f[i] = function(i);
    return result;
}
inline F16 all(float value) {
    return each([&](int) { return value; });
}
inline F16 zero() { return all(0.0f); }
inline F16 load(const float* from) {
    F16 result;
    memcpy(result.f, from, sizeof result.f);
    return result;
}
inline void store(float* to, const F16& v) { memcpy(to, v.f, sizeof v.f); }
inline F16 add(const F16& a, const F16& b) {
    return each([&](int i) { return a.f[i] + b.f[i]; });
}
inline F16 sub(const F16& a, const F16& b) {
    return each([&](int i) { return a.f[i] - b.f[i]; });
}
inline F16 mul(const F16& a, const F16& b) {
    return each([&](int i) { return a.f[i] * b.f[i]; });
}
inline F16 div(const F16& a, const F16& b) {
    return each([&](int i) { return a.f[i] / b.f[i]; });
}
inline F16 max(const F16& a, const F16& b) {
    return each([&](int i) { return a.f[i] > b.f[i] ? a.f[i] : b.f[i]; });
}
inline F16 min(const F16& a, const F16& b) {
    return each([&](int i) { return a.f[i] < b.f[i] ? a.f[i] : b.f[i]; });
}
inline F16 fma(const F16& a, const F16& b, const F16& c) {
#if defined(__aarch64__)
    return each([&](int i) { return __builtin_fmaf(a.f[i], b.f[i], c.f[i]); });
#else  // without the instruction it would be a call of the C library for each number
    return each([&](int i) { return a.f[i] * b.f[i] + c.f[i]; });
#endif
}
inline F16 nearest(const F16& a) {
    // Adding and subtracting 1.5 * 2^23 leaves no bits for a fraction; right for |a| < 2^22.
    return each([&](int i) { return (a.f[i] + 12582912.0f) - 12582912.0f; });
}
// a * 2^n for whole n; below the smallest normal number it is 0.
inline F16 scaled(const F16& a, const F16& n) {
    return each([&](int i) {
        if (!(n.f[i] >= -126.0f)) return 0.0f;
        const int exponent = n.f[i] < 127.0f ? static_cast<int>(n.f[i]) : 127;
        return a.f[i] * float_of_bits(static_cast<uint32_t>(exponent + 127) << 23);
    });
}
// The first `count` lanes of `v`, `other` in the rest.
inline F16 first_lanes(const F16& v, int count, float other) {
    return each([&](int i) { return i < count ? v.f[i] : other; });
}

#endif

// Sum and maximum of the lanes, by halves: always in the same order.
#if defined(__AVX512F__)

inline float sum(F16 v) { return _mm512_reduce_add_ps(v); }
inline float maximum(F16 v) { return _mm512_reduce_max_ps(v); }

#else

inline float sum(F16 v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
}

inline float maximum(F16 v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
}

#endif

// 2^x, off by less than 2 units in the last place; 2^0 is exactly 1. Taylor's series of 2^r on [-1/2, 1/2].
inline F16 exp2(F16 x) {
    // In this order of arguments a NaN stays one.
    const F16 bounded = min(all(130.0f), max(all(-150.0f), x));
    const F16 n = nearest(bounded);
    const F16 r = sub(bounded, n);
    F16 p = all(1.5403530e-4f);
    p = fma(p, r, all(1.3333558e-3f));
    p = fma(p, r, all(9.6181291e-3f));
    p = fma(p, r, all(5.5504109e-2f));
    p = fma(p, r, all(2.4022651e-1f));
    p = fma(p, r, all(6.9314718e-1f));
    p = fma(p, r, all(1.0f));
    return scaled(p, n);
}

}  // namespace
