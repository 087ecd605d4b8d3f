// Products by AVX2 and FMA, compiled twice: with VNNI's dot products of bytes (gemm_avxvnni.cpp) and without. A
// register holds half a strip: 8 outputs.
#pragma once

#include <immintrin.h>

#include "gemm_kinds.h"
#include "gemm_rows.h"

namespace moorage {

namespace {

constexpr int kHalf = kStrip / 2;
constexpr int kMostRows = 4;  // computed together

// One row's results of 16 outputs.
inline void store_row(const Product& product, int strip, int row, __m256 low, __m256 high) {
    alignas(32) float sums[kStrip];
    _mm256_store_ps(sums, low);
    _mm256_store_ps(sums + kHalf, high);
    store_strip(product, strip, row, sums);
}

inline __m256 load_halves(const uint8_t* at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

// Scales or minimums of half a strip.
template <Quantisation kind>
MOORAGE_INLINE __m256 load_factors(const uint8_t* groups, const uint8_t* upper, int group, int half) {
    const int at = group * kStrip + half * kHalf;
    if constexpr (!kind.two_level) return load_halves(groups + at * 2);
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(groups + at));
    return _mm256_mul_ps(load_halves(upper + half * kHalf * 2), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
}

// Codes of 4 inputs of 8 outputs.
template <Quantisation kind>
MOORAGE_INLINE __m256i load_codes(const uint8_t* codes, int j, int half) {
    if constexpr (kind.bits == 8) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + j * 64 + half * 32));
    }
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + j / 2 * 64 + half * 32));
    return _mm256_and_si256(j % 2 == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
}

#if defined(__AVXVNNI__)

template <Quantisation kind>
constexpr int kZero = kind.bits == 8 ? 128 : kind.zero;

// total += codes x, exactly. Signed codes are made unsigned by an offset of 128, which the total starts without.
template <Quantisation kind>
MOORAGE_INLINE __m256i add_dot(__m256i total, __m256i codes, __m256i x) {
    if constexpr (kind.bits == 8) codes = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    return _mm256_dpbusd_avx_epi32(total, codes, x);
}

#else

template <Quantisation kind>
constexpr int kZero = kind.zero;

// Sums of two products fit 16 bits: at most 2 * 128 * 127. The unsigned factor of the instruction is a code's
// magnitude.
template <Quantisation kind>
MOORAGE_INLINE __m256i add_dot(__m256i total, __m256i codes, __m256i x) {
    __m256i pairs;
    if constexpr (kind.bits == 8) pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
    else pairs = _mm256_maddubs_epi16(codes, x);
    return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#endif

inline __m256i four_codes(const int8_t* at) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(at)); }

template <Quantisation kind, int run>
MOORAGE_INLINE void add_group(const uint8_t* chunk, int in_chunk, int half, const CodeRows& x,
                              __m256 (&sums)[run]) {
    constexpr Chunk layout = chunk_of(kind);
    const uint8_t* codes = chunk + in_chunk * layout.code_bytes;
    __m256i dots[run];
    unrolled<run>(MOORAGE_EACH(r) { dots[r] = _mm256_set1_epi32(-kZero<kind> * x.sum[r]); });
    unrolled<kind.group / 4>(MOORAGE_EACH(j) {
        const __m256i four = load_codes<kind>(codes, j, half);
        unrolled<run>(
            MOORAGE_EACH(r) { dots[r] = add_dot<kind>(dots[r], four, four_codes(x.codes + r * kGroup + j * 4)); });
    });
    const __m256 scales = load_factors<kind>(chunk + layout.scales, chunk + layout.upper_scales, in_chunk, half);
    unrolled<run>(MOORAGE_EACH(r) {
        const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(x.scale[r]));
        sums[r] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots[r]), sums[r]);
    });
    if constexpr (kind.minimum) {
        const __m256 minimums =
            load_factors<kind>(chunk + layout.minimums, chunk + layout.upper_minimums, in_chunk, half);
        unrolled<run>(MOORAGE_EACH(r) { sums[r] = _mm256_fmadd_ps(minimums, _mm256_set1_ps(x.offset[r]), sums[r]); });
    }
}

template <Quantisation kind, int run>
void quantised_run(const Product& product, int strip, int row) {
    constexpr Chunk layout = chunk_of(kind);
    const uint8_t* chunk = strip_at(product, strip);
    const CodeRows x = code_rows<kind>(product, row);
    const int groups = product.matrix.k / kind.group;
    __m256 sums[2][run];
    unrolled<2 * run>(MOORAGE_EACH(i) { sums[i / run][i % run] = _mm256_setzero_ps(); });
    for (int group = 0; group < groups; group += layout.groups, chunk += layout.bytes) {
        const int count = std::min(layout.groups, groups - group);
        for (int i = 0; i < count; ++i) {
            const CodeRows at = in_group<kind>(x, group + i);
            add_group<kind, run>(chunk, i, 0, at, sums[0]);
            add_group<kind, run>(chunk, i, 1, at, sums[1]);
        }
    }
    unrolled<run>(MOORAGE_EACH(r) { store_row(product, strip, row + r, sums[0][r], sums[1][r]); });
}

void multiply_quantised(const Product& product) {
    for_kind(product.matrix.quantisation, [&]<Quantisation kind>() {
        for_strips_and_runs<kMostRows>(
            product, [&]<int run>(int strip, int row) { quantised_run<kind, run>(product, strip, row); });
    });
}

inline __m256 load_weights(const float* at) { return _mm256_loadu_ps(at); }
inline __m256 load_weights(const uint16_t* at) { return load_halves(reinterpret_cast<const uint8_t*>(at)); }

template <typename Weight, int run>
void floats_run(const Product& product, int strip, int row) {
    FloatRows x = float_rows(product, row);
    const auto* weights = reinterpret_cast<const Weight*>(strip_at(product, strip));
    __m256 sums[2][run];
    unrolled<2 * run>(MOORAGE_EACH(i) { sums[i / run][i % run] = _mm256_setzero_ps(); });
    for (int i = 0; i < product.matrix.k; ++i, weights += kStrip, x.values += x.apart) {
        const __m256 low = load_weights(weights);
        const __m256 high = load_weights(weights + kHalf);
        unrolled<run>(MOORAGE_EACH(r) {
            const __m256 value = _mm256_set1_ps(x.values[r]);
            sums[0][r] = _mm256_fmadd_ps(low, value, sums[0][r]);
            sums[1][r] = _mm256_fmadd_ps(high, value, sums[1][r]);
        });
    }
    unrolled<run>(MOORAGE_EACH(r) { store_row(product, strip, row + r, sums[0][r], sums[1][r]); });
}

template <typename Weight>
void multiply_floats(const Product& product) {
    for_strips_and_runs<kMostRows>(product,
                                   [&]<int run>(int strip, int row) { floats_run<Weight, run>(product, strip, row); });
}

inline __m256 first_of_pairs(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }

inline __m256 second_of_pairs(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000U))));
}

template <int run>
void bf16_run(const Product& product, int strip, int row) {
    const PairRows x = pair_rows(product, row);
    const auto* weights = reinterpret_cast<const __m256i*>(strip_at(product, strip));
    __m256 sums[2][run];
    unrolled<2 * run>(MOORAGE_EACH(i) { sums[i / run][i % run] = _mm256_setzero_ps(); });
    for (int pair = 0; pair < (product.matrix.k + 1) / 2; ++pair, weights += 2) {
        const uint32_t* values = pair_at(x, pair);
        unrolled<2>(MOORAGE_EACH(half) {
            const __m256i both = _mm256_loadu_si256(weights + half);
            unrolled<run>(MOORAGE_EACH(r) {
                const __m256i two = _mm256_set1_epi32(static_cast<int32_t>(values[r * kPairs]));
                sums[half][r] = _mm256_fmadd_ps(first_of_pairs(both), first_of_pairs(two), sums[half][r]);
                sums[half][r] = _mm256_fmadd_ps(second_of_pairs(both), second_of_pairs(two), sums[half][r]);
            });
        });
    }
    unrolled<run>(MOORAGE_EACH(r) { store_row(product, strip, row + r, sums[0][r], sums[1][r]); });
}

void multiply_bf16(const Product& product) {
    for_strips_and_runs<kMostRows>(product,
                                   [&]<int run>(int strip, int row) { bf16_run<run>(product, strip, row); });
}

}  // namespace

}  // namespace moorage
