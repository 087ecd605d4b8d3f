// Decodes rows of GGUF's quantised blocks into codes, scales and minimums. Private to the packing of matrices.
#pragma once

#include <cstdint>
#include <vector>

#include "matrix.h"

namespace moorage {

// One row of k weights, taken apart: see Quantisation for what it means. Halves are IEEE binary16 as stored.
struct DecodedRow {
    std::vector<int8_t> codes;         // k: 0..15 for 4-bit layouts, else signed
    std::vector<uint16_t> scales;      // per group, or per 256 inputs on two levels
    std::vector<uint16_t> minimums;    // likewise, if there is a minimum
    std::vector<int8_t> lower_scales;  // per group, only on two levels
    std::vector<int8_t> lower_minimums;
};

Quantisation quantisation_of(Format format);

// Sized for rows of k weights of this kind.
DecodedRow decoded_row(const Quantisation& quantisation, int k);

void decode_row(Format format, int k, const uint8_t* blocks, DecodedRow& row);

}  // namespace moorage
