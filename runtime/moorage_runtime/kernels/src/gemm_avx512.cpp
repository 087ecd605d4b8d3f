// Products by AVX-512 and VNNI: rows are taken together so that each weight is loaded and unpacked once for up to 8 of
// them.
#include "gemm_avx512.h"
#include "gemm_kinds.h"

namespace moorage {

namespace {

constexpr int kMostRows = 8;  // computed together

// Codes of one group as unsigned bytes: register j holds inputs 4 j .. 4 j + 3 of each output.
template <Quantisation kind>
MOORAGE_INLINE void load_codes(const uint8_t* from, __m512i (&codes)[kind.group / 4]) {
    if constexpr (kind.bits == 8) {
        unrolled<kind.group / 4>(MOORAGE_EACH(j) {
            codes[j] = _mm512_xor_si512(_mm512_loadu_si512(from + j * 64), _mm512_set1_epi8(-128));
        });
    } else {
        const __m512i low = _mm512_set1_epi8(15);
        unrolled<kind.group / 8>(MOORAGE_EACH(j) {
            const __m512i both = _mm512_loadu_si512(from + j * 64);
            codes[2 * j] = _mm512_and_si512(both, low);
            codes[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        });
    }
}

inline __m512i four_codes(const int8_t* at) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(at)); }

// Every lane starts from what the codes' offset of 0, 4, 8 or 128 would add.
template <Quantisation kind>
MOORAGE_INLINE __m512i dot(const __m512i (&codes)[kind.group / 4], const int8_t* x, int32_t sum) {
    constexpr int zero = kind.bits == 8 ? 128 : kind.zero;
    __m512i total = zero == 0 ? _mm512_setzero_si512() : _mm512_set1_epi32(-zero * sum);
    unrolled<kind.group / 4>(MOORAGE_EACH(j) { total = _mm512_dpbusd_epi32(total, codes[j], four_codes(x + j * 4)); });
    return total;
}

template <Quantisation kind, int run>
MOORAGE_INLINE void add_group(const uint8_t* chunk, int in_chunk, const CodeRows& x, __m512 (&sums)[run]) {
    __m512i codes[kind.group / 4];
    load_codes<kind>(chunk + in_chunk * chunk_of(kind).code_bytes, codes);
    const __m512 scales = load_scales<kind>(chunk, in_chunk);
    unrolled<run>(MOORAGE_EACH(r) {
        const __m512 exact = _mm512_cvtepi32_ps(dot<kind>(codes, x.codes + r * kGroup, x.sum[r]));
        const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(x.scale[r]));
        sums[r] = _mm512_fmadd_ps(scale, exact, sums[r]);
    });
    if constexpr (kind.minimum) {
        const __m512 minimums = load_minimums<kind>(chunk, in_chunk);
        unrolled<run>(MOORAGE_EACH(r) { sums[r] = _mm512_fmadd_ps(minimums, _mm512_set1_ps(x.offset[r]), sums[r]); });
    }
}

template <Quantisation kind, int run>
void quantised_run(const Product& product, int strip, int row) {
    constexpr Chunk layout = chunk_of(kind);
    const uint8_t* chunk = strip_at(product, strip);
    const CodeRows x = code_rows<kind>(product, row);
    const int groups = product.matrix.k / kind.group;
    __m512 sums[run];
    unrolled<run>(MOORAGE_EACH(r) { sums[r] = _mm512_setzero_ps(); });
    for (int group = 0; group < groups; group += layout.groups, chunk += layout.bytes) {
        prefetch<layout.bytes>(chunk + kAhead);
        const int count = std::min(layout.groups, groups - group);
        for (int i = 0; i < count; ++i) add_group<kind, run>(chunk, i, in_group<kind>(x, group + i), sums);
    }
    const StripOut to = strip_out(product, strip);
    unrolled<run>(MOORAGE_EACH(r) { store_row(to, row + r, sums[r]); });
}

void multiply_quantised(const Product& product) {
    for_kind(product.matrix.quantisation, [&]<Quantisation kind>() {
        for_strips_and_runs<kMostRows>(
            product, [&]<int run>(int strip, int row) { quantised_run<kind, run>(product, strip, row); });
    });
}

inline __m512 load_weights(const float* at) { return _mm512_loadu_ps(at); }
inline __m512 load_weights(const uint16_t* at) { return load_halves(reinterpret_cast<const uint8_t*>(at)); }

// One row of one strip is one chain of additions; several strips at once hide its latency.
template <typename Weight, int strips, int run>
void floats_run(const Product& product, int strip, int row) {
    FloatRows x = float_rows(product, row);
    const size_t apart = product.matrix.strip_bytes / sizeof(Weight);
    const auto* weights = reinterpret_cast<const Weight*>(strip_at(product, strip));
    __m512 sums[strips][run];
    unrolled<strips * run>(MOORAGE_EACH(i) { sums[i / run][i % run] = _mm512_setzero_ps(); });
    for (int i = 0; i < product.matrix.k; ++i, weights += kStrip, x.values += x.apart) {
        unrolled<strips>(MOORAGE_EACH(s) {
            const __m512 weight = load_weights(weights + static_cast<size_t>(s) * apart);
            unrolled<run>(
                MOORAGE_EACH(r) { sums[s][r] = _mm512_fmadd_ps(weight, _mm512_set1_ps(x.values[r]), sums[s][r]); });
        });
    }
    unrolled<strips>(MOORAGE_EACH(s) {
        const StripOut to = strip_out(product, strip + s);
        unrolled<run>(MOORAGE_EACH(r) { store_row(to, row + r, sums[s][r]); });
    });
}

template <typename Weight>
void multiply_floats(const Product& product) {
    const int together = 2;
    int strip = product.strip_begin;
    for (; strip + together <= product.strip_end; strip += together) {
        for_row_runs<kMostRows>(product,
                                [&]<int run>(int row) { floats_run<Weight, together, run>(product, strip, row); });
    }
    for (; strip < product.strip_end; ++strip) {
        for_row_runs<kMostRows>(product, [&]<int run>(int row) { floats_run<Weight, 1, run>(product, strip, row); });
    }
}

// A product of two bfloat16 is exact in binary32, so this is bit-equal to a multiplication and an addition.
template <int run>
void bf16_run(const Product& product, int strip, int row) {
    const PairRows x = pair_rows(product, row);
    const uint8_t* weights = strip_at(product, strip);
    const __m512i high = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000U));
    __m512 sums[run];
    unrolled<run>(MOORAGE_EACH(r) { sums[r] = _mm512_setzero_ps(); });
    for (int pair = 0; pair < (product.matrix.k + 1) / 2; ++pair, weights += 64) {
        const __m512i both = _mm512_loadu_si512(weights);
        const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
        const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(both, high));
        const uint32_t* values = pair_at(x, pair);
        unrolled<run>(MOORAGE_EACH(r) {
            const __m512i two = _mm512_set1_epi32(static_cast<int32_t>(values[r * kPairs]));
            sums[r] = _mm512_fmadd_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(two, 16)), sums[r]);
            sums[r] = _mm512_fmadd_ps(odd, _mm512_castsi512_ps(_mm512_and_si512(two, high)), sums[r]);
        });
    }
    const StripOut to = strip_out(product, strip);
    unrolled<run>(MOORAGE_EACH(r) { store_row(to, row + r, sums[r]); });
}

void multiply_bf16(const Product& product) {
    for_strips_and_runs<kMostRows>(product,
                                   [&]<int run>(int strip, int row) { bf16_run<run>(product, strip, row); });
}

}  // namespace

const Path kAvx512Path = {"avx512",      multiply_floats<float>, multiply_floats<uint16_t>,
                          multiply_bf16, multiply_quantised,     kAvx512Rows};

}  // namespace moorage
