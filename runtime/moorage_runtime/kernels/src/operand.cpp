#include "operand.h"

#include "gemm_paths.h"
#include "operand_rows.h"

namespace moorage {

namespace {

size_t row_bytes_of(Operand kind, int k) {
    switch (kind) {
        case Operand::F32: return f32_row_bytes(k);
        case Operand::BF16: return bf16_row_bytes(k);
        case Operand::I8: return i8_row_bytes(k);
    }
    return 0;
}

PrepareRow prepare_of(Operand kind) {
    const RowPreparations& rows = chosen_path().rows;
    switch (kind) {
        case Operand::F32: return rows.f32;
        case Operand::BF16: return rows.bf16;
        case Operand::I8: return rows.i8;
    }
    return nullptr;
}

}  // namespace

const RowPreparations kScalarRows = {prepare_f32, prepare_bf16, prepare_i8};

// A line more than the rows take: tiles of 16 rows read scales beyond the last one's (and drop what comes of them).
size_t operand_bytes(Operand kind, int rows, int k) { return row_bytes_of(kind, k) * static_cast<size_t>(rows) + 64; }

void operand_prepare(Operand kind, const float* x, size_t ldx, int row_begin, int row_end, int k, int rows,
                     void* operand) {
    const size_t row_bytes = row_bytes_of(kind, k);
    const PrepareRow prepare = prepare_of(kind);
    for (int row = row_begin; row < row_end; ++row) {
        const RowBlock<uint8_t> block = row_block(static_cast<uint8_t*>(operand), row_bytes, rows, row / kRowBlock);
        prepare(x + static_cast<size_t>(row) * ldx, k, block, row % kRowBlock);
    }
}

}  // namespace moorage
