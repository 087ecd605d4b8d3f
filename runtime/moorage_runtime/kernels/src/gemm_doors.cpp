// Matrices and products as C functions, for loading from Python and for tests.
#include <cstdint>
#include <cstdlib>
#include <new>

#include "gemm.h"

#define MOORAGE_DOOR extern "C" __attribute__((visibility("default")))

using moorage::Matrix;

// nullptr: the format cannot hold k, or there is no memory.
MOORAGE_DOOR Matrix* moorage_matrix_pack(int32_t format, int32_t n, int32_t k, const void* rows) {
    return moorage::matrix_pack(static_cast<moorage::Format>(format), n, k, rows);
}

MOORAGE_DOOR void moorage_matrix_free(Matrix* matrix) { moorage::matrix_free(matrix); }

MOORAGE_DOOR uint64_t moorage_matrix_bytes(const Matrix* matrix) { return moorage::matrix_bytes(*matrix); }

// Bytes of a row in the checkpoint, 0 where the format cannot hold k.
MOORAGE_DOOR uint64_t moorage_matrix_row_bytes(int32_t format, int32_t k) {
    return moorage::format_row_bytes(static_cast<moorage::Format>(format), k);
}

MOORAGE_DOOR void moorage_matrix_row(const Matrix* matrix, int32_t row, float* out) {
    moorage::matrix_row(*matrix, row, out);
}

MOORAGE_DOOR int32_t moorage_matrix_tiles(const Matrix* matrix) { return moorage::matrix_tiles(*matrix); }

// An operand of x (rows x k, contiguous); to be freed by moorage_operand_free. nullptr: no memory.
MOORAGE_DOOR void* moorage_operand_make(const Matrix* matrix, const float* x, int32_t rows) {
    const int k = moorage::matrix_inputs(*matrix);
    const moorage::Operand kind = moorage::matrix_operand(*matrix);
    void* operand = ::operator new(moorage::operand_bytes(kind, rows, k), std::align_val_t{64}, std::nothrow);
    if (operand != nullptr) moorage::operand_prepare(kind, x, static_cast<size_t>(k), 0, rows, k, rows, operand);
    return operand;
}

MOORAGE_DOOR void moorage_operand_free(void* operand) { ::operator delete(operand, std::align_val_t{64}); }

// See moorage::matrix_multiply; out is contiguous rows of n.
MOORAGE_DOOR void moorage_matrix_multiply(const Matrix* matrix, const void* operand, int32_t rows, int32_t row_begin,
                                          int32_t row_end, int32_t tile, float* out, const float* bias, int32_t add) {
    moorage::matrix_multiply(*matrix, operand, rows, row_begin, row_end, tile, out,
                             static_cast<size_t>(moorage::matrix_outputs(*matrix)), bias, add != 0);
}

MOORAGE_DOOR int32_t moorage_kernels_select(const char* name) { return moorage::kernels_select(name) ? 1 : 0; }

MOORAGE_DOOR const char* moorage_kernels_path() { return moorage::kernels_path(); }
