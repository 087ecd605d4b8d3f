#include "matrix.h"

#include <cstring>
#include <new>

#include "matrix_blocks.h"
#include "matrix_half.h"
#include "matrix_memory.h"
#include "operand.h"

namespace moorage {

namespace {

// Enough tiles for threads to share a matrix evenly, few enough that taking one costs nothing beside its work.
constexpr int kWantedTiles = 24;
constexpr int kMinimumTileStrips = 2;
constexpr int kMaximumTileStrips = 8;
// Of an L2 cache of 1 MiB or more, the rest is for the weights. Each row of a range is a page of results, too.
constexpr size_t kOperandInCache = 512 * 1024;
constexpr int kMaximumRange = 256;

Layout layout_of(Format format) {
    switch (format) {
        case Format::F32: return Layout::F32;
        case Format::F16: return Layout::F16;
        case Format::BF16: return Layout::BF16;
        default: return Layout::Quantised;
    }
}

void place(Matrix& matrix) {
    const auto k = static_cast<size_t>(matrix.k);
    switch (matrix.layout) {
        case Layout::F32: matrix.strip_bytes = k * kStrip * 4; break;
        case Layout::F16: matrix.strip_bytes = round_up(k * kStrip * 2, 64); break;
        case Layout::BF16: matrix.strip_bytes = round_up(k, kGroup) * kStrip * 2; break;
        case Layout::Quantised:
            matrix.chunk = chunk_of(matrix.quantisation);
            matrix.strip_bytes = round_up(k, static_cast<size_t>(matrix.chunk.inputs)) /
                                 static_cast<size_t>(matrix.chunk.inputs) * static_cast<size_t>(matrix.chunk.bytes);
            break;
    }
    matrix.strips = (matrix.n + kStrip - 1) / kStrip;
    matrix.tile_strips = std::clamp(matrix.strips / kWantedTiles, kMinimumTileStrips, kMaximumTileStrips);
    matrix.bytes = static_cast<size_t>(matrix.strips) * matrix.strip_bytes;
}

void pack_f32(const Matrix& matrix, int lane, const uint8_t* row, uint8_t* strip) {
    for (int k = 0; k < matrix.k; ++k) std::memcpy(strip + (k * kStrip + lane) * 4, row + k * 4, 4);
}

void pack_f16(const Matrix& matrix, int lane, const uint8_t* row, uint8_t* strip) {
    for (int k = 0; k < matrix.k; ++k) std::memcpy(strip + (k * kStrip + lane) * 2, row + k * 2, 2);
}

void pack_bf16(const Matrix& matrix, int lane, const uint8_t* row, uint8_t* strip) {
    for (int k = 0; k < matrix.k; ++k) std::memcpy(strip + (k / 2 * kStrip + lane) * 4 + k % 2 * 2, row + k * 2, 2);
}

void pack_codes(const Quantisation& kind, int lane, const int8_t* codes, int count, uint8_t* chunk) {
    if (kind.bits == 8) {
        for (int k = 0; k < count; k += 4) std::memcpy(chunk + (k / 4 * kStrip + lane) * 4, codes + k, 4);
        return;
    }
    for (int k = 0; k < count; k += 8) {
        uint8_t* to = chunk + (k / 8 * kStrip + lane) * 4;
        for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(codes[k + i] | codes[k + i + 4] << 4);
    }
}

// Every `kStrip`th value of `to`, from the lane's on.
template <typename Value>
void interleave(const Value* values, int count, int lane, uint8_t* to) {
    for (int i = 0; i < count; ++i) {
        std::memcpy(to + static_cast<size_t>(i * kStrip + lane) * sizeof(Value), values + i, sizeof(Value));
    }
}

void pack_factors(const Matrix& matrix, int lane, const DecodedRow& row, int group, int count, uint8_t* to) {
    const Chunk& chunk = matrix.chunk;
    const bool minimum = matrix.quantisation.minimum;
    if (!matrix.quantisation.two_level) {
        interleave(&row.scales[group], count, lane, to + chunk.scales);
        if (minimum) interleave(&row.minimums[group], count, lane, to + chunk.minimums);
        return;
    }
    const int super = group / chunk.groups;
    interleave(&row.lower_scales[group], count, lane, to + chunk.scales);
    interleave(&row.scales[super], 1, lane, to + chunk.upper_scales);
    if (minimum) interleave(&row.lower_minimums[group], count, lane, to + chunk.minimums);
    if (minimum) interleave(&row.minimums[super], 1, lane, to + chunk.upper_minimums);
}

void pack_quantised(const Matrix& matrix, int lane, const DecodedRow& row, uint8_t* to) {
    const Chunk& chunk = matrix.chunk;
    for (int k = 0; k < matrix.k; k += chunk.inputs, to += chunk.bytes) {
        const int inputs = std::min(chunk.inputs, matrix.k - k);
        const int group = matrix.quantisation.group;
        pack_codes(matrix.quantisation, lane, &row.codes[k], inputs, to);
        pack_factors(matrix, lane, row, k / group, inputs / group, to);
    }
}

void pack_rows(Matrix& matrix, const uint8_t* rows) {
    const size_t row_bytes = format_row_bytes(matrix.format, matrix.k);
    const bool quantised = matrix.layout == Layout::Quantised;
    DecodedRow decoded = quantised ? decoded_row(matrix.quantisation, matrix.k) : DecodedRow{};
    for (int n = 0; n < matrix.n; ++n) {
        const uint8_t* row = rows + static_cast<size_t>(n) * row_bytes;
        uint8_t* strip = matrix.data + static_cast<size_t>(n / kStrip) * matrix.strip_bytes;
        switch (matrix.layout) {
            case Layout::F32: pack_f32(matrix, n % kStrip, row, strip); break;
            case Layout::F16: pack_f16(matrix, n % kStrip, row, strip); break;
            case Layout::BF16: pack_bf16(matrix, n % kStrip, row, strip); break;
            case Layout::Quantised:
                decode_row(matrix.format, matrix.k, row, decoded);
                pack_quantised(matrix, n % kStrip, decoded, strip);
                break;
        }
    }
}

const uint8_t* strip_of(const Matrix& matrix, int row) {
    return matrix.data + static_cast<size_t>(row / kStrip) * matrix.strip_bytes;
}

uint16_t half_at(const uint8_t* bytes) {
    uint16_t half = 0;
    std::memcpy(&half, bytes, sizeof half);
    return half;
}

// The scale or minimum of a chunk's group.
float factor(const Matrix& matrix, const uint8_t* groups, const uint8_t* upper, int lane, int group) {
    const int at = group * kStrip + lane;
    if (!matrix.quantisation.two_level) return half_to_float(half_at(groups + at * 2));
    return half_to_float(half_at(upper + lane * 2)) * static_cast<float>(static_cast<int8_t>(groups[at]));
}

int code_at(const Quantisation& kind, const uint8_t* codes, int lane, int k) {
    if (kind.bits == 8) return static_cast<int8_t>(codes[(k / 4 * kStrip + lane) * 4 + k % 4]);
    const uint8_t both = codes[(k / 8 * kStrip + lane) * 4 + k % 4];
    return (k % 8 < 4 ? both & 15 : both >> 4) - kind.zero;
}

void row_quantised(const Matrix& matrix, const uint8_t* strip, int lane, float* out) {
    const Chunk& chunk = matrix.chunk;
    for (int k = 0; k < matrix.k; ++k) {
        const uint8_t* at = strip + static_cast<ptrdiff_t>(k / chunk.inputs) * chunk.bytes;
        const int within = k % chunk.inputs;
        const int group = within / matrix.quantisation.group;
        const float scale = factor(matrix, at + chunk.scales, at + chunk.upper_scales, lane, group);
        out[k] = scale * static_cast<float>(code_at(matrix.quantisation, at, lane, within));
        if (!matrix.quantisation.minimum) continue;
        out[k] += factor(matrix, at + chunk.minimums, at + chunk.upper_minimums, lane, group);
    }
}

}  // namespace

Matrix* matrix_pack(Format format, int n, int k, const void* rows) {
    if (n <= 0 || format_row_bytes(format, k) == 0) return nullptr;
    auto* matrix = new (std::nothrow) Matrix{};
    if (matrix == nullptr) return nullptr;
    matrix->format = format;
    matrix->layout = layout_of(format);
    matrix->quantisation = quantisation_of(format);
    matrix->n = n;
    matrix->k = k;
    place(*matrix);
    matrix->data = memory_take(matrix->bytes);
    if (matrix->data == nullptr) {
        delete matrix;
        return nullptr;
    }
    pack_rows(*matrix, static_cast<const uint8_t*>(rows));
    return matrix;
}

void matrix_free(Matrix* matrix) {
    if (matrix == nullptr) return;
    memory_give(matrix->data);
    delete matrix;
}

int matrix_outputs(const Matrix& matrix) { return matrix.n; }

int matrix_inputs(const Matrix& matrix) { return matrix.k; }

size_t matrix_bytes(const Matrix& matrix) { return matrix.bytes; }

Operand matrix_operand(const Matrix& matrix) {
    switch (matrix.layout) {
        case Layout::BF16: return Operand::BF16;
        case Layout::Quantised: return Operand::I8;
        default: return Operand::F32;
    }
}

int matrix_tile_width(const Matrix& matrix) { return matrix.tile_strips * kStrip; }

int matrix_tiles(const Matrix& matrix) { return (matrix.strips + matrix.tile_strips - 1) / matrix.tile_strips; }

int matrix_row_range(const Matrix& matrix) {
    const size_t row = operand_bytes(matrix_operand(matrix), kRowBlock, matrix.k) / kRowBlock;
    const int fitting = static_cast<int>(kOperandInCache / row) / kRowBlock * kRowBlock;
    return std::clamp(fitting, 2 * kRowBlock, kMaximumRange);
}

void matrix_row(const Matrix& matrix, int row, float* out) {
    const uint8_t* strip = strip_of(matrix, row);
    const int lane = row % kStrip;
    for (int k = 0; k < matrix.k; ++k) {
        switch (matrix.layout) {
            case Layout::F32: std::memcpy(out + k, strip + (k * kStrip + lane) * 4, 4); break;
            case Layout::F16: out[k] = half_to_float(half_at(strip + (k * kStrip + lane) * 2)); break;
            case Layout::BF16: out[k] = bf16_to_float(half_at(strip + (k / 2 * kStrip + lane) * 4 + k % 2 * 2)); break;
            case Layout::Quantised: return row_quantised(matrix, strip, lane, out);
        }
    }
}

}  // namespace moorage
