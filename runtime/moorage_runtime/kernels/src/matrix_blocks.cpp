// Block layouts as of ggml's quantised types (https://github.com/ggml-org/ggml, docs of GGUF; `gguf.quants` in Python).
#include "matrix_blocks.h"

#include <array>
#include <cstring>

namespace moorage {

namespace {

uint16_t half_at(const uint8_t* bytes) {
    uint16_t half = 0;
    std::memcpy(&half, bytes, sizeof half);
    return half;
}

uint32_t word_at(const uint8_t* bytes) {
    uint32_t word = 0;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

// IEEE binary16 carries its sign in the top bit.
uint16_t negated(uint16_t half) { return half ^ 0x8000U; }

void nibbles(const uint8_t* packed, int8_t* codes) {
    for (int i = 0; i < 16; ++i) {
        codes[i] = static_cast<int8_t>(packed[i] & 15);
        codes[i + 16] = static_cast<int8_t>(packed[i] >> 4);
    }
}

void fifth_bits(uint32_t bits, int8_t* codes) {
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(codes[i] | ((bits >> i & 1) << 4));
}

void q4_0(const uint8_t* block, int index, DecodedRow& row) {
    row.scales[index] = half_at(block);
    nibbles(block + 2, &row.codes[index * 32]);
}

void q4_1(const uint8_t* block, int index, DecodedRow& row) {
    row.scales[index] = half_at(block);
    row.minimums[index] = half_at(block + 2);
    nibbles(block + 4, &row.codes[index * 32]);
}

void q5_0(const uint8_t* block, int index, DecodedRow& row) {
    int8_t* codes = &row.codes[index * 32];
    row.scales[index] = half_at(block);
    nibbles(block + 6, codes);
    fifth_bits(word_at(block + 2), codes);
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(codes[i] - 16);
}

void q5_1(const uint8_t* block, int index, DecodedRow& row) {
    int8_t* codes = &row.codes[index * 32];
    row.scales[index] = half_at(block);
    row.minimums[index] = half_at(block + 2);
    nibbles(block + 8, codes);
    fifth_bits(word_at(block + 4), codes);
}

void q8_0(const uint8_t* block, int index, DecodedRow& row) {
    row.scales[index] = half_at(block);
    std::memcpy(&row.codes[index * 32], block + 2, 32);
}

// 256 inputs: 2 halves of 128, each 4 bit planes of 2 x 16 inputs.
void q2_k(const uint8_t* block, int index, DecodedRow& row) {
    const uint8_t* packed = block + 16;
    row.scales[index] = half_at(block + 80);
    row.minimums[index] = negated(half_at(block + 82));
    for (int group = 0; group < 16; ++group) {
        row.lower_scales[index * 16 + group] = static_cast<int8_t>(block[group] & 15);
        row.lower_minimums[index * 16 + group] = static_cast<int8_t>(block[group] >> 4);
    }
    for (int i = 0; i < 256; ++i) {
        const int plane = i % 128 / 32;
        row.codes[index * 256 + i] = static_cast<int8_t>(packed[i / 128 * 32 + i % 32] >> (2 * plane) & 3);
    }
}

// 16 scales of 6 bits: low 4 bits in 8 bytes, high 2 bits in the other 4.
int q3_k_scale(const uint8_t* packed, int group) {
    const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
    const int high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
    return (low | high << 4) - 32;
}

void q3_k(const uint8_t* block, int index, DecodedRow& row) {
    const uint8_t* high = block;
    const uint8_t* low = block + 32;
    row.scales[index] = half_at(block + 108);
    for (int group = 0; group < 16; ++group) {
        row.lower_scales[index * 16 + group] = static_cast<int8_t>(q3_k_scale(block + 96, group));
    }
    for (int i = 0; i < 256; ++i) {
        const int two = low[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3;
        const int one = high[i % 32] >> (i / 32) & 1;
        row.codes[index * 256 + i] = static_cast<int8_t>(two | one << 2);
    }
}

// 8 scales and 8 minimums of 6 bits in 12 bytes.
void six_bit_pairs(const uint8_t* packed, int8_t* scales, int8_t* minimums) {
    for (int i = 0; i < 4; ++i) {
        scales[i] = static_cast<int8_t>(packed[i] & 63);
        minimums[i] = static_cast<int8_t>(packed[i + 4] & 63);
        scales[i + 4] = static_cast<int8_t>((packed[i + 8] & 15) | (packed[i] >> 6) << 4);
        minimums[i + 4] = static_cast<int8_t>((packed[i + 8] >> 4) | (packed[i + 4] >> 6) << 4);
    }
}

void q4_k_head(const uint8_t* block, int index, DecodedRow& row) {
    row.scales[index] = half_at(block);
    row.minimums[index] = negated(half_at(block + 2));
    six_bit_pairs(block + 4, &row.lower_scales[index * 8], &row.lower_minimums[index * 8]);
}

// Of every 64 inputs, 32 are low halves of bytes and 32 high ones.
int q4_k_code(const uint8_t* packed, int i) { return packed[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15; }

void q4_k(const uint8_t* block, int index, DecodedRow& row) {
    q4_k_head(block, index, row);
    for (int i = 0; i < 256; ++i) row.codes[index * 256 + i] = static_cast<int8_t>(q4_k_code(block + 16, i));
}

void q5_k(const uint8_t* block, int index, DecodedRow& row) {
    const uint8_t* high = block + 16;
    q4_k_head(block, index, row);
    for (int i = 0; i < 256; ++i) {
        const int fifth = high[i % 32] >> (i / 32) & 1;
        row.codes[index * 256 + i] = static_cast<int8_t>(q4_k_code(block + 48, i) | fifth << 4);
    }
}

void q6_k(const uint8_t* block, int index, DecodedRow& row) {
    row.scales[index] = half_at(block + 208);
    std::memcpy(&row.lower_scales[index * 16], block + 192, 16);
    for (int i = 0; i < 256; ++i) {
        const int plane = i % 128 / 32;
        const uint8_t* low = block + i / 128 * 64 + plane % 2 * 32;
        const uint8_t* high = block + 128 + i / 128 * 32;
        const int code = (low[i % 32] >> (plane / 2 * 4) & 15) | (high[i % 32] >> (2 * plane) & 3) << 4;
        row.codes[index * 256 + i] = static_cast<int8_t>(code - 32);
    }
}

struct BlockFormat {
    Format format;
    int inputs, bytes;
    Quantisation quantisation;
    void (*decode)(const uint8_t* block, int index, DecodedRow& row);
};

constexpr std::array<BlockFormat, 10> kBlockFormats = {{
    {Format::Q4_0, 32, 18, {4, 32, 8, false, false}, q4_0},
    {Format::Q4_1, 32, 20, {4, 32, 0, true, false}, q4_1},
    {Format::Q5_0, 32, 22, {8, 32, 0, false, false}, q5_0},
    {Format::Q5_1, 32, 24, {8, 32, 0, true, false}, q5_1},
    {Format::Q8_0, 32, 34, {8, 32, 0, false, false}, q8_0},
    {Format::Q2_K, 256, 84, {4, 16, 0, true, true}, q2_k},
    {Format::Q3_K, 256, 110, {4, 16, 4, false, true}, q3_k},
    {Format::Q4_K, 256, 144, {4, 32, 0, true, true}, q4_k},
    {Format::Q5_K, 256, 176, {8, 32, 0, true, true}, q5_k},
    {Format::Q6_K, 256, 210, {8, 16, 0, false, true}, q6_k},
}};

const BlockFormat* block_format(Format format) {
    for (const BlockFormat& each : kBlockFormats) {
        if (each.format == format) return &each;
    }
    return nullptr;
}

}  // namespace

size_t format_row_bytes(Format format, int k) {
    if (k <= 0) return 0;
    if (format == Format::F32) return static_cast<size_t>(k) * 4;
    if (format == Format::F16 || format == Format::BF16) return static_cast<size_t>(k) * 2;
    const BlockFormat* blocks = block_format(format);
    if (blocks == nullptr || k % blocks->inputs != 0) return 0;
    return static_cast<size_t>(k / blocks->inputs) * static_cast<size_t>(blocks->bytes);
}

Quantisation quantisation_of(Format format) {
    const BlockFormat* blocks = block_format(format);
    return blocks == nullptr ? Quantisation{} : blocks->quantisation;
}

DecodedRow decoded_row(const Quantisation& quantisation, int k) {
    const auto groups = static_cast<size_t>(k / quantisation.group);
    const size_t uppers = quantisation.two_level ? static_cast<size_t>(k / kSuper) : groups;
    const size_t lowers = quantisation.two_level ? groups : 0;
    DecodedRow row;
    row.codes.resize(static_cast<size_t>(k));
    row.scales.resize(uppers);
    row.minimums.resize(quantisation.minimum ? uppers : 0);
    row.lower_scales.resize(lowers);
    row.lower_minimums.resize(quantisation.minimum ? lowers : 0);
    return row;
}

void decode_row(Format format, int k, const uint8_t* blocks, DecodedRow& row) {
    const BlockFormat* kind = block_format(format);
    for (int index = 0; index < k / kind->inputs; ++index) kind->decode(blocks + index * kind->bytes, index, row);
}

}  // namespace moorage
