// What the AVX-512 and the AMX paths share; each compiles its own copy. A register holds a strip: 16 outputs.
#pragma once

// GCC 12's own header reads a register before it writes it, in order to leave it undefined (its bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "gemm_rows.h"

namespace moorage {

namespace {

// Where one strip's results go.
struct StripOut {
    float* out;
    size_t ldo;
    __mmask16 mask;
    __m512 bias;
    bool add;
};

inline StripOut strip_out(const Product& product, int strip) {
    const int first = strip * kStrip;
    const int width = std::min(kStrip, product.matrix.n - first);
    const auto mask = static_cast<__mmask16>((1U << width) - 1U);
    const bool biased = product.bias != nullptr;
    const __m512 bias = biased ? _mm512_maskz_loadu_ps(mask, product.bias + first) : _mm512_setzero_ps();
    return {product.out + first, product.ldo, mask, bias, product.add};
}

// Asks for the lines that rows [row, row + count) will be written to, which are as good as never in a cache of this
// core.
inline void prefetch_rows(const StripOut& to, int row, int count) {
    for (int r = 0; r < count; ++r) __builtin_prefetch(to.out + static_cast<size_t>(row + r) * to.ldo, 1);
}

// Without a bias zero is added: the same value but for -0, which becomes +0 in every path.
inline void store_row(const StripOut& to, int row, __m512 sum) {
    float* at = to.out + static_cast<size_t>(row) * to.ldo;
    __m512 value = _mm512_add_ps(sum, to.bias);
    if (to.add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(to.mask, at), value);
    _mm512_mask_storeu_ps(at, to.mask, value);
}

inline __m512 load_halves(const uint8_t* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// How far ahead of the weights in use the next are asked for: measured, the hardware alone reaches 4/5 of the speed.
constexpr int kAhead = 2048;

template <int bytes>
void prefetch(const uint8_t* from) {
    for (int line = 0; line < bytes; line += 64) _mm_prefetch(from + line, _MM_HINT_T0);
}

// Of a chunk's group, for 16 outputs.
template <Quantisation kind>
__m512 load_factors(const uint8_t* groups, const uint8_t* upper, int group) {
    if constexpr (!kind.two_level) return load_halves(groups + group * kStrip * 2);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(groups + group * kStrip));
    return _mm512_mul_ps(load_halves(upper), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
}

template <Quantisation kind>
__m512 load_scales(const uint8_t* chunk, int group) {
    constexpr Chunk at = chunk_of(kind);
    return load_factors<kind>(chunk + at.scales, chunk + at.upper_scales, group);
}

template <Quantisation kind>
__m512 load_minimums(const uint8_t* chunk, int group) {
    constexpr Chunk at = chunk_of(kind);
    return load_factors<kind>(chunk + at.minimums, chunk + at.upper_minimums, group);
}

}  // namespace

}  // namespace moorage
