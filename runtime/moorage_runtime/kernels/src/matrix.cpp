#include "matrix.h"

#include <cstring>
#include <new>

#include "matrix_blocks.h"
#include "matrix_half.h"
#include "operand.h"

namespace moorage {

namespace {

constexpr size_t kAlignment = 64;
// Enough tiles for threads to share a matrix evenly, few enough that taking one costs nothing beside its work.
constexpr int kWantedTiles = 24;
constexpr int kMaximumTileStrips = 8;
// Of an L2 cache of 1 MiB or more, the rest is for the weights.
constexpr size_t kOperandInCache = 512 * 1024;

Layout layout_of(Format format) {
    switch (format) {
        case Format::F32: return Layout::F32;
        case Format::F16: return Layout::F16;
        case Format::BF16: return Layout::BF16;
        default: return Layout::Quantised;
    }
}

void place_quantised(Matrix& matrix) {
    const Quantisation& kind = matrix.quantisation;
    const auto k = static_cast<size_t>(matrix.k);
    const size_t groups = k / static_cast<size_t>(kind.group) * kStrip * (kind.two_level ? 1 : 2);
    const size_t supers = kind.two_level ? k / kSuper * kStrip * 2 : 0;
    matrix.scales = k * kStrip * static_cast<size_t>(kind.bits) / 8;
    matrix.minimums = matrix.scales + groups;
    matrix.upper_scales = matrix.minimums + (kind.minimum ? groups : 0);
    matrix.upper_minimums = matrix.upper_scales + supers;
    matrix.strip_bytes = round_up(matrix.upper_minimums + (kind.minimum ? supers : 0), kAlignment);
}

void place(Matrix& matrix) {
    const auto k = static_cast<size_t>(matrix.k);
    switch (matrix.layout) {
        case Layout::F32: matrix.strip_bytes = k * kStrip * 4; break;
        case Layout::F16: matrix.strip_bytes = round_up(k * kStrip * 2, kAlignment); break;
        case Layout::BF16: matrix.strip_bytes = round_up(k, kGroup) * kStrip * 2; break;
        case Layout::Quantised: place_quantised(matrix); break;
    }
    matrix.strips = (matrix.n + kStrip - 1) / kStrip;
    matrix.tile_strips = std::clamp(matrix.strips / kWantedTiles, 1, kMaximumTileStrips);
    matrix.allocated = static_cast<size_t>(matrix.strips) * matrix.strip_bytes;
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

void place_codes(const Matrix& matrix, int lane, const int8_t* codes, uint8_t* strip) {
    if (matrix.quantisation.bits == 8) {
        for (int k = 0; k < matrix.k; k += 4) std::memcpy(strip + (k / 4 * kStrip + lane) * 4, codes + k, 4);
        return;
    }
    for (int k = 0; k < matrix.k; k += 8) {
        uint8_t* to = strip + (k / 8 * kStrip + lane) * 4;
        for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(codes[k + i] | codes[k + i + 4] << 4);
    }
}

template <typename Value>
void interleave(const std::vector<Value>& values, int lane, uint8_t* to) {
    for (size_t i = 0; i < values.size(); ++i) {
        std::memcpy(to + (i * kStrip + static_cast<size_t>(lane)) * sizeof(Value), &values[i], sizeof(Value));
    }
}

void pack_quantised(const Matrix& matrix, int lane, const DecodedRow& row, uint8_t* strip) {
    const bool two_level = matrix.quantisation.two_level;
    place_codes(matrix, lane, row.codes.data(), strip);
    interleave(row.scales, lane, strip + (two_level ? matrix.upper_scales : matrix.scales));
    interleave(row.minimums, lane, strip + (two_level ? matrix.upper_minimums : matrix.minimums));
    interleave(row.lower_scales, lane, strip + matrix.scales);
    interleave(row.lower_minimums, lane, strip + matrix.minimums);
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

uint8_t* allocate_zeroed(size_t bytes) {
    auto* data = static_cast<uint8_t*>(::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow));
    if (data != nullptr) std::memset(data, 0, bytes);
    return data;
}

const uint8_t* strip_of(const Matrix& matrix, int row) {
    return matrix.data + static_cast<size_t>(row / kStrip) * matrix.strip_bytes;
}

uint16_t half_at(const uint8_t* bytes) {
    uint16_t half = 0;
    std::memcpy(&half, bytes, sizeof half);
    return half;
}

// The scale or minimum of the group that holds input k.
float factor(const Matrix& matrix, const uint8_t* strip, size_t groups, size_t supers, int lane, int k) {
    const int group = k / matrix.quantisation.group * kStrip + lane;
    if (!matrix.quantisation.two_level) return half_to_float(half_at(strip + groups + group * 2));
    const int super = k / kSuper * kStrip + lane;
    const auto lower = static_cast<float>(static_cast<int8_t>(strip[groups + static_cast<size_t>(group)]));
    return half_to_float(half_at(strip + supers + super * 2)) * lower;
}

int code_at(const Matrix& matrix, const uint8_t* strip, int lane, int k) {
    if (matrix.quantisation.bits == 8) return static_cast<int8_t>(strip[(k / 4 * kStrip + lane) * 4 + k % 4]);
    const uint8_t both = strip[(k / 8 * kStrip + lane) * 4 + k % 4];
    return (k % 8 < 4 ? both & 15 : both >> 4) - matrix.quantisation.zero;
}

void row_quantised(const Matrix& matrix, const uint8_t* strip, int lane, float* out) {
    for (int k = 0; k < matrix.k; ++k) {
        const float scale = factor(matrix, strip, matrix.scales, matrix.upper_scales, lane, k);
        out[k] = scale * static_cast<float>(code_at(matrix, strip, lane, k));
        if (!matrix.quantisation.minimum) continue;
        out[k] += factor(matrix, strip, matrix.minimums, matrix.upper_minimums, lane, k);
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
    matrix->data = allocate_zeroed(matrix->allocated);
    if (matrix->data == nullptr) {
        delete matrix;
        return nullptr;
    }
    pack_rows(*matrix, static_cast<const uint8_t*>(rows));
    return matrix;
}

void matrix_free(Matrix* matrix) {
    if (matrix == nullptr) return;
    ::operator delete(matrix->data, std::align_val_t{kAlignment});
    delete matrix;
}

int matrix_outputs(const Matrix& matrix) { return matrix.n; }

int matrix_inputs(const Matrix& matrix) { return matrix.k; }

size_t matrix_bytes(const Matrix& matrix) { return matrix.allocated; }

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
    return std::max<int>(2, static_cast<int>(kOperandInCache / row / kRowBlock)) * kRowBlock;
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
