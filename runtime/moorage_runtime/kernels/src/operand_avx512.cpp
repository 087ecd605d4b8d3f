// The compiler's vectors do well but for 8-bit codes, whose narrowing and sums it does not see through.
#include "gemm_avx512.h"
#include "operand_rows.h"

namespace moorage {

namespace {

// As quantise() and half_sums(), in two registers.
HalfSums quantise_group(const float* x, int8_t* codes, float& scale) {
    const __m512 first = _mm512_loadu_ps(x);
    const __m512 second = _mm512_loadu_ps(x + 16);
    const __m512i magnitudes =
        _mm512_max_epu32(_mm512_castps_si512(_mm512_abs_ps(first)), _mm512_castps_si512(_mm512_abs_ps(second)));
    const auto largest = std::bit_cast<float>(_mm512_reduce_max_epu32(magnitudes));
    if (!(largest >= kSmallest && largest <= std::numeric_limits<float>::max())) {
        scale = quantise(x, codes);
        return {};
    }
    scale = largest / 127.0F;
    const __m512 inverse = _mm512_set1_ps(127.0F / largest);
    const __m128i low = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(first, inverse)));
    const __m128i high = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(second, inverse)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), low);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), high);
    const __m128i ones = _mm_set1_epi8(1);
    const __m128i of_low = _mm_dpbusd_epi32(_mm_setzero_si128(), ones, low);
    const __m128i of_high = _mm_dpbusd_epi32(_mm_setzero_si128(), ones, high);
    const __m128i twos = _mm_hadd_epi32(of_low, of_high);
    const __m128i sums = _mm_hadd_epi32(twos, twos);
    return {{_mm_cvtsi128_si32(sums), _mm_extract_epi32(sums, 1)}};
}

void prepare_i8_in_registers(const float* x, int k, RowBlock<uint8_t> block, int row) {
    const MutableCodes to = mutable_codes_of(block, k);
    for (int group = 0; group < k / kGroup; ++group) {
        float scale = 0;
        int8_t* codes = to.codes + (group * to.rows + row) * kGroup;
        const HalfSums sums = quantise_group(x + group * kGroup, codes, scale);
        place_group(to, group, row, scale, sums);
    }
}

}  // namespace

const RowPreparations kAvx512Rows = {prepare_f32, prepare_bf16, prepare_i8_in_registers};

}  // namespace moorage
