// Products by NEON with dot products of bytes (aarch64). A register holds a quarter of a strip: 4 outputs.
#include <arm_neon.h>

#include "gemm_kinds.h"
#include "gemm_rows.h"

namespace moorage {

namespace {

constexpr int kQuarters = 4;
constexpr int kMostRows = 2;  // computed together

// One row's sums of a strip.
using Sums = float32x4_t[kQuarters];

void store_row(const Product& product, int strip, int row, const Sums& sums) {
    float values[kStrip];
    for (int quarter = 0; quarter < kQuarters; ++quarter) vst1q_f32(values + quarter * 4, sums[quarter]);
    store_strip(product, strip, row, values);
}

template <int run>
MOORAGE_INLINE void clear(Sums (&sums)[run]) {
    unrolled<run * kQuarters>(MOORAGE_EACH(i) { sums[i / kQuarters][i % kQuarters] = vdupq_n_f32(0); });
}

float32x4_t load_halves(const uint8_t* at) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(at))));
}

// Scales or minimums of a quarter of a strip.
template <Quantisation kind>
MOORAGE_INLINE float32x4_t load_factors(const uint8_t* groups, const uint8_t* upper, int group, int quarter) {
    const int at = group * kStrip + quarter * 4;
    if constexpr (!kind.two_level) return load_halves(groups + at * 2);
    int32_t lower[4];
    for (int lane = 0; lane < 4; ++lane) lower[lane] = static_cast<int8_t>(groups[at + lane]);
    return vmulq_f32(load_halves(upper + quarter * 8), vcvtq_f32_s32(vld1q_s32(lower)));
}

// Signed codes of 4 inputs of 4 outputs.
template <Quantisation kind>
MOORAGE_INLINE int8x16_t load_codes(const uint8_t* codes, int j, int quarter) {
    if constexpr (kind.bits == 8) return vreinterpretq_s8_u8(vld1q_u8(codes + j * 64 + quarter * 16));
    const uint8x16_t both = vld1q_u8(codes + j / 2 * 64 + quarter * 16);
    const uint8x16_t half = j % 2 == 0 ? vandq_u8(both, vdupq_n_u8(15)) : vshrq_n_u8(both, 4);
    return vsubq_s8(vreinterpretq_s8_u8(half), vdupq_n_s8(kind.zero));
}

int8x16_t four_codes(const int8_t* at) {
    return vreinterpretq_s8_s32(vdupq_n_s32(*reinterpret_cast<const int32_t*>(at)));
}

template <Quantisation kind, int run>
MOORAGE_INLINE void add_group(const uint8_t* chunk, int in_chunk, const CodeRows& x, Sums (&sums)[run]) {
    constexpr Chunk layout = chunk_of(kind);
    const uint8_t* codes = chunk + in_chunk * layout.code_bytes;
    int32x4_t dots[run][kQuarters];
    unrolled<run * kQuarters>(MOORAGE_EACH(i) { dots[i / kQuarters][i % kQuarters] = vdupq_n_s32(0); });
    unrolled<kind.group / 4>(MOORAGE_EACH(j) {
        unrolled<kQuarters>(MOORAGE_EACH(quarter) {
            const int8x16_t four = load_codes<kind>(codes, j, quarter);
            unrolled<run>(MOORAGE_EACH(r) {
                dots[r][quarter] = vdotq_s32(dots[r][quarter], four, four_codes(x.codes + r * kGroup + j * 4));
            });
        });
    });
    unrolled<kQuarters>(MOORAGE_EACH(quarter) {
        const float32x4_t scales =
            load_factors<kind>(chunk + layout.scales, chunk + layout.upper_scales, in_chunk, quarter);
        unrolled<run>(MOORAGE_EACH(r) {
            const float32x4_t scale = vmulq_f32(scales, vdupq_n_f32(x.scale[r]));
            sums[r][quarter] = vfmaq_f32(sums[r][quarter], scale, vcvtq_f32_s32(dots[r][quarter]));
        });
        if constexpr (kind.minimum) {
            const float32x4_t minimums =
                load_factors<kind>(chunk + layout.minimums, chunk + layout.upper_minimums, in_chunk, quarter);
            unrolled<run>(MOORAGE_EACH(r) {
                sums[r][quarter] = vfmaq_f32(sums[r][quarter], minimums, vdupq_n_f32(x.offset[r]));
            });
        }
    });
}

template <Quantisation kind, int run>
void quantised_run(const Product& product, int strip, int row) {
    constexpr Chunk layout = chunk_of(kind);
    const uint8_t* chunk = strip_at(product, strip);
    const CodeRows x = code_rows<kind>(product, row);
    const int groups = product.matrix.k / kind.group;
    Sums sums[run];
    clear<run>(sums);
    for (int group = 0; group < groups; group += layout.groups, chunk += layout.bytes) {
        const int count = std::min(layout.groups, groups - group);
        for (int i = 0; i < count; ++i) add_group<kind, run>(chunk, i, in_group<kind>(x, group + i), sums);
    }
    unrolled<run>(MOORAGE_EACH(r) { store_row(product, strip, row + r, sums[r]); });
}

void multiply_quantised(const Product& product) {
    for_kind(product.matrix.quantisation, [&]<Quantisation kind>() {
        for_strips_and_runs<kMostRows>(
            product, [&]<int run>(int strip, int row) { quantised_run<kind, run>(product, strip, row); });
    });
}

float32x4_t load_weights(const float* at) { return vld1q_f32(at); }
float32x4_t load_weights(const uint16_t* at) { return load_halves(reinterpret_cast<const uint8_t*>(at)); }

template <typename Weight, int run>
void floats_run(const Product& product, int strip, int row) {
    FloatRows x = float_rows(product, row);
    const auto* weights = reinterpret_cast<const Weight*>(strip_at(product, strip));
    Sums sums[run];
    clear<run>(sums);
    for (int i = 0; i < product.matrix.k; ++i, weights += kStrip, x.values += x.apart) {
        unrolled<kQuarters>(MOORAGE_EACH(quarter) {
            const float32x4_t weight = load_weights(weights + quarter * 4);
            unrolled<run>(MOORAGE_EACH(r) {
                sums[r][quarter] = vfmaq_f32(sums[r][quarter], weight, vdupq_n_f32(x.values[r]));
            });
        });
    }
    unrolled<run>(MOORAGE_EACH(r) { store_row(product, strip, row + r, sums[r]); });
}

template <typename Weight>
void multiply_floats(const Product& product) {
    for_strips_and_runs<kMostRows>(product,
                                   [&]<int run>(int strip, int row) { floats_run<Weight, run>(product, strip, row); });
}

float32x4_t first_of_pairs(uint32x4_t pairs) { return vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)); }

float32x4_t second_of_pairs(uint32x4_t pairs) {
    return vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000U)));
}

template <int run>
void bf16_run(const Product& product, int strip, int row) {
    const PairRows x = pair_rows(product, row);
    const auto* weights = reinterpret_cast<const uint32_t*>(strip_at(product, strip));
    Sums sums[run];
    clear<run>(sums);
    for (int pair = 0; pair < (product.matrix.k + 1) / 2; ++pair, weights += kStrip) {
        const uint32_t* values = pair_at(x, pair);
        unrolled<kQuarters>(MOORAGE_EACH(quarter) {
            const uint32x4_t both = vld1q_u32(weights + quarter * 4);
            unrolled<run>(MOORAGE_EACH(r) {
                const uint32x4_t two = vdupq_n_u32(values[r * kPairs]);
                float32x4_t& sum = sums[r][quarter];
                sum = vfmaq_f32(sum, first_of_pairs(both), first_of_pairs(two));
                sum = vfmaq_f32(sum, second_of_pairs(both), second_of_pairs(two));
            });
        });
    }
    unrolled<run>(MOORAGE_EACH(r) { store_row(product, strip, row + r, sums[r]); });
}

void multiply_bf16(const Product& product) {
    for_strips_and_runs<kMostRows>(product,
                                   [&]<int run>(int strip, int row) { bf16_run<run>(product, strip, row); });
}

}  // namespace

const Path kNeonPath = {"neon",        multiply_floats<float>, multiply_floats<uint16_t>,
                        multiply_bf16, multiply_quantised,     kScalarRows};

}  // namespace moorage
