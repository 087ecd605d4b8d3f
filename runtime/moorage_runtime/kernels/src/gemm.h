// Matrix products with constant weights: packed once for this machine, multiplied by activations at every step.
//
// A product is cut into units of work that any thread may do in any order:
//
//     operand_prepare(kind, x, ldx, row_begin, row_end, k, rows, operand)    for ranges of rows that together cover all
//     -- barrier --
//     matrix_multiply(matrix, operand, rows, row_begin, row_end, tile, ...)  for every (range of rows, tile)
//
// The bits of a result row depend on that row of x and on the matrix alone: not on the number of rows, their ranges,
// the tile, the thread, or the other rows' values (NaN and infinity included). Each kind of operand has one order of
// summation over k per machine; where a path mixes instruction sets (VNNI for few rows, AMX for many), they are
// bit-equal.
//
// Nothing here throws; only packing and freeing lock and allocate (and a thread's first large product). Build with
// -ffp-contract=off: the order of roundings is part of the promise.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moorage {

// How a checkpoint stores a matrix: GGUF's type numbers and block layouts (ggml's specification).
enum class Format : int32_t {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    BF16 = 30,
};

// What activations are made into before a product: as they are (F32 and F16 weights), rounded to bfloat16 (BF16
// weights), or 8-bit codes with one scale per row and 32 values (all quantised formats).
enum class Operand : int32_t { F32 = 0, BF16 = 1, I8 = 2 };

struct Matrix;

// Bytes of one row of k weights in the checkpoint; 0 where the format cannot hold k (quantised: k % 32, K-quants: k %
// 256) or is unknown.
size_t format_row_bytes(Format format, int k);

// Repacks n rows (outputs) of k weights without loss. nullptr: the format cannot hold k, or there is no memory.
Matrix* matrix_pack(Format format, int n, int k, const void* rows);
void matrix_free(Matrix* matrix);

int matrix_outputs(const Matrix& matrix);
int matrix_inputs(const Matrix& matrix);
// Memory that the packed matrix holds.
size_t matrix_bytes(const Matrix& matrix);
Operand matrix_operand(const Matrix& matrix);

// Outputs are cut into tiles of matrix_tile_width columns (the last may be narrower): [t * width, min(n, (t + 1) *
// width)). The width is a multiple of 16.
int matrix_tiles(const Matrix& matrix);
int matrix_tile_width(const Matrix& matrix);
// Rows of a unit of work that keep its part of the operand in a core's L2 cache: cut more rows than this into ranges of
// it, and hand out all tiles of a range before the next. Ranges at multiples of 16 rows waste nothing.
int matrix_row_range(const Matrix& matrix);

// An operand needs 64-byte alignment and this many bytes; its layout depends on rows, so prepare and multiply must be
// told the same number.
size_t operand_bytes(Operand kind, int rows, int k);
// Fills rows [row_begin, row_end) of the operand from x (row r at x + r * ldx).
void operand_prepare(Operand kind, const float* x, size_t ldx, int row_begin, int row_end, int k, int rows,
                     void* operand);

// out (row r at out + r * ldo) = [out +] x W^T [+ bias] for rows [row_begin, row_end) and the tile's columns. bias (n)
// may be nullptr.
void matrix_multiply(const Matrix& matrix, const void* operand, int rows, int row_begin, int row_end, int tile,
                     float* out, size_t ldo, const float* bias, bool add);

// One dequantised row (k floats), such as a token's embedding in a tied table.
void matrix_row(const Matrix& matrix, int row, float* out);

// The path that products take here, for telemetry: amx, avx512, avxvnni, avx2, neon or scalar. The environment
// variable MOORAGE_KERNELS lowers it to the best that is not above the one named there.
const char* kernels_path();
// As the environment variable, while no product runs; false: no such path. For tests.
bool kernels_select(const char* name);

}  // namespace moorage
